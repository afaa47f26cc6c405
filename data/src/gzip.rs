//! Gzipped files as `gzip` reads them.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The content of a file's streams, one after the other. Zeros behind them are no damage: tapes and
/// some copies fill a last block with them.
pub(crate) struct Streams<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Streams<R> {
    pub fn new(file: R) -> Self {
        Streams(Some(GzDecoder::new(file)))
    }
}

impl<R: BufRead> Read for Streams<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(stream) = &mut self.0 else { return Ok(0) };
            let n = stream.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let rest = self.0.take().map(GzDecoder::into_inner);
            if let Some(mut rest) = rest
                && !skip_zeros(&mut rest)?
            {
                self.0 = Some(GzDecoder::new(rest));
            }
        }
    }
}

/// True if nothing but zeros is left.
fn skip_zeros(reader: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        let (zeros, all) = (buffer.iter().take_while(|b| **b == 0).count(), buffer.len());
        reader.consume(zeros);
        if zeros < all || all == 0 {
            return Ok(all == 0);
        }
    }
}
