//! Writes the fixtures as first inputs for the fuzzer: `cargo run --bin seeds`, in this folder.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    for entry in fs::read_dir("../../fixtures/wire")? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let digits: Vec<u32> = text
            .lines()
            .filter_map(|line| line.split('|').next())
            .flat_map(str::chars)
            .filter_map(|digit| digit.to_digit(16))
            .collect();
        let bytes: Vec<u8> = digits.chunks(2).filter_map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect();
        let name = path.file_stem().unwrap_or_default();
        write(&Path::new("corpus/wire").join(name), &bytes)?;
        // As a stream of bytes, and as header and body that the harness puts into a frame.
        write(&Path::new("corpus/connection").join(name), &[&[0, 40], &bytes[..]].concat())?;
        if let Some((prefix, rest)) = bytes.split_first_chunk::<8>() {
            let header_bytes = usize::from(prefix[6]) << 8 | usize::from(prefix[7]);
            if prefix[..2] == [0, 0] && header_bytes <= rest.len() {
                let (header, body) = rest.split_at(header_bytes);
                let mut framed = vec![1, 40];
                for part in [header, body] {
                    framed.extend(u16::try_from(part.len()).unwrap_or(0).to_be_bytes());
                    framed.extend(part);
                }
                let name = format!("{}-framed", name.display());
                write(&Path::new("corpus/connection").join(name), &framed)?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}
