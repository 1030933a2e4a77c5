//! Writes the fixtures as first inputs for the fuzzer: `cargo run --bin seeds`, in this folder.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let corpus = Path::new("corpus/peer");
    fs::create_dir_all(corpus)?;
    for entry in fs::read_dir("../../fixtures/replication")? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "hex") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let digits: Vec<u32> = text
            .lines()
            .filter_map(|line| line.split('#').next())
            .flat_map(str::chars)
            .filter_map(|digit| digit.to_digit(16))
            .collect();
        let bytes: Vec<u8> = digits.chunks(2).filter_map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect();
        // As they are, and with checksums that follow what is changed.
        for mode in [0, 1] {
            let name = format!("{}-{mode}", path.file_stem().unwrap_or_default().display());
            fs::write(corpus.join(name), [&[mode, 40], &bytes[..]].concat())?;
        }
    }
    Ok(())
}
