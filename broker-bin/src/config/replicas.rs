//! Other brokers of a set, as people write them.

use std::fmt;
use std::str::FromStr;

use super::units::{HostPort, UnitError};

/// One broker of a set: `b=10.0.0.2:9876+10.0.0.2:10912`, its name, where clients reach it, and where its replicas do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub id: String,
    /// Where clients reach it.
    pub clients: HostPort,
    /// Where its replicas reach it.
    pub replicas: HostPort,
}

/// Several, separated by commas; every one but the broker itself, which may stand among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas(pub Vec<Replica>);

impl FromStr for Replicas {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Replicas, UnitError> {
        let one = |text: &str| {
            let unreadable = || {
                UnitError(format!(
                    "{text:?} is no replica; write NAME=HOST:PORT+HOST:PORT, for clients and for replicas"
                ))
            };
            let (id, addresses) = text.trim().split_once('=').ok_or_else(unreadable)?;
            let (clients, replicas) = addresses.split_once('+').ok_or_else(unreadable)?;
            Ok(Replica { id: id.trim().to_owned(), clients: clients.parse()?, replicas: replicas.parse()? })
        };
        let replicas =
            text.split(',').filter(|part| !part.trim().is_empty()).map(one).collect::<Result<Vec<_>, _>>()?;
        let mut ids: Vec<_> = replicas.iter().map(|replica| replica.id.as_str()).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(UnitError(format!("{} stands there twice", twice[0])));
        }
        Ok(Replicas(replicas))
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Replica { id, clients, replicas }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{id}={clients}+{replicas}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_read_as_they_are_shown() {
        let text = "b=10.0.0.2:9876+10.0.0.2:10912,c=[::1]:1+name:2";
        let replicas: Replicas = text.parse().expect("good");
        assert_eq!(replicas.0.len(), 2);
        assert_eq!(replicas.to_string(), text);
        assert_eq!("".parse(), Ok(Replicas::default()));
        for bad in ["b", "b=1:2", "b=host:1+host", "b=h:1+h:2,b=h:3+h:4"] {
            assert!(bad.parse::<Replicas>().is_err(), "{bad}");
        }
    }
}
