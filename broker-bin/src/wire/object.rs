//! JSON objects member by member, and the maps that only look like JSON: their keys are objects.
//!
//! 1. Nothing is buffered: members stand in the order in which they were put, without blanks.
//! 2. Members that are closed stay closed: an object ends when it is dropped.

use bytes::{BufMut, BytesMut};

use super::json::{put_number, put_string};

/// An object that is being written.
pub struct Object<'a> {
    out: &'a mut BytesMut,
    is_empty: bool,
}

impl<'a> Object<'a> {
    /// Begins one.
    pub fn begin(out: &'a mut BytesMut) -> Object<'a> {
        out.put_u8(b'{');
        Object { out, is_empty: true }
    }

    fn separate(&mut self) {
        if !self.is_empty {
            self.out.put_u8(b',');
        }
        self.is_empty = false;
    }

    fn name(&mut self, name: &str) {
        self.separate();
        put_string(self.out, name);
        self.out.put_u8(b':');
    }

    /// A member of text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        put_string(self.out, value);
        self
    }

    /// A whole number.
    pub fn number(&mut self, name: &str, value: impl Into<i64>) -> &mut Self {
        self.name(name);
        put_number(self.out, value.into());
        self
    }

    /// A whole number that is never negative. What does not fit 63 bits is the largest that does.
    pub fn count(&mut self, name: &str, value: u64) -> &mut Self {
        self.number(name, i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A number with a fraction, at least `.0`.
    pub fn fraction(&mut self, name: &str, value: f64) -> &mut Self {
        self.name(name);
        let value = if value.is_finite() { value } else { 0.0 };
        self.out.put_slice(format!("{value:?}").as_bytes());
        self
    }

    /// True or false.
    pub fn truth(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name);
        self.out.put_slice(if value { b"true" } else { b"false" });
        self
    }

    /// What is JSON already, or nearly.
    pub fn raw(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        self.out.put_slice(value.as_bytes());
        self
    }

    /// An object in it.
    pub fn object(&mut self, name: &str, put: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        self.name(name);
        put(&mut Object::begin(self.out));
        self
    }

    /// A list in it.
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        put: impl Fn(&mut BytesMut, T),
    ) -> &mut Self {
        self.name(name);
        self.out.put_u8(b'[');
        for (place, item) in items.into_iter().enumerate() {
            if place > 0 {
                self.out.put_u8(b',');
            }
            put(self.out, item);
        }
        self.out.put_u8(b']');
        self
    }

    /// A list of texts in it.
    pub fn texts<T: AsRef<str>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        self.list(name, items, |out, item| put_string(out, item.as_ref()))
    }

    /// A map in it whose keys are queues: tools read no other form of them.
    pub fn by_queue<'q, V>(
        &mut self,
        name: &str,
        rows: impl IntoIterator<Item = (QueueKey<'q>, V)>,
        put: impl Fn(&mut BytesMut, V),
    ) -> &mut Self {
        self.name(name);
        self.out.put_u8(b'{');
        for (place, (queue, value)) in rows.into_iter().enumerate() {
            if place > 0 {
                self.out.put_u8(b',');
            }
            queue.put(self.out);
            self.out.put_u8(b':');
            put(self.out, value);
        }
        self.out.put_u8(b'}');
        self
    }

    /// A member with a whole number as its name, without quotes, as older readers want it.
    pub fn numbered(&mut self, name: i64, value: i64) -> &mut Self {
        self.separate();
        put_number(self.out, name);
        self.out.put_u8(b':');
        put_number(self.out, value);
        self
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.out.put_u8(b'}');
    }
}

/// A queue as tools name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueKey<'a> {
    /// Its broker.
    pub broker: &'a str,
    /// Its topic.
    pub topic: &'a str,
    /// Its number.
    pub number: u32,
}

impl QueueKey<'_> {
    /// Appends it as an object.
    pub fn put(&self, out: &mut BytesMut) {
        Object::begin(out).text("brokerName", self.broker).number("queueId", self.number).text("topic", self.topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stand_in_order_and_everything_is_closed() {
        let mut out = BytesMut::new();
        let queue = QueueKey { broker: "b", topic: "T", number: 3 };
        Object::begin(&mut out)
            .text("a", "\"")
            .number("b", -1)
            .fraction("c", 0.0)
            .fraction("d", f64::NAN)
            .truth("e", true)
            .object("f", |object| {
                object.numbered(0, 5).numbered(1, 6);
            })
            .texts("g", ["x", "y"])
            .by_queue("h", [(queue, 1), (queue, 2)], put_number)
            .object("i", |_| {})
            .count("j", u64::MAX);
        let key = r#"{"brokerName":"b","queueId":3,"topic":"T"}"#;
        let wanted = format!(
            r#"{{"a":"\"","b":-1,"c":0.0,"d":0.0,"e":true,"f":{{0:5,1:6}},"g":["x","y"],"h":{{{key}:1,{key}:2}},"i":{{}},"j":{}}}"#,
            i64::MAX
        );
        assert_eq!(std::str::from_utf8(&out), Ok(wanted.as_str()));
    }
}
