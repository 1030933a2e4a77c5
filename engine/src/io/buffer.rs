//! stub
/// stub
#[derive(Debug)]
pub struct AlignedBuf;
/// stub
#[derive(Debug)]
pub struct IoSlice;
