//! Raw disks in a compressed stream: xz, gzip, zstd.

use std::io::{self, BufRead, BufReader, Read};

use super::format::{by_head, unsupported_head};
use super::writer::{CHUNK, Writer};
use super::{Format, ImportError, Input, read_full};

/// The largest zstd window that is accepted, in bytes: what `zstd --ultra --long=27` makes.
const MAX_WINDOW: u64 = 128 << 20;

pub fn copy(input: &Input<'_>, format: Format, out: &mut Writer<'_>) -> Result<(), ImportError> {
    let file = BufReader::with_capacity(CHUNK, &input.file);
    let mut stream: Box<dyn Read + '_> = match format {
        Format::RawXz => Box::new(lzma_rust2::XzReader::new(file, true)),
        Format::RawGzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        _ => Box::new(Zstd { source: Some(file), frame: None }),
    };
    let mut buf = vec![0; CHUNK];
    loop {
        let n = read_full(&mut *stream, &mut buf).map_err(|error| {
            // An error of the file itself has a number of the system; all else is the decompressor's.
            match error.raw_os_error() {
                Some(_) => input.read_error(error),
                None => input.damaged(format!("it does not decompress: {error}")),
            }
        })?;
        let data = buf.get(..n).unwrap_or_default();
        if out.position() == 0 && (by_head(data).is_some() || unsupported_head(data).is_some()) {
            return Err(input.unsupported("what is compressed in it is no raw disk; decompress it before"));
        }
        input.checked_size(out.position().saturating_add(n as u64))?;
        if n > 0 {
            out.data(data)?;
        }
        if n < buf.len() {
            return Ok(());
        }
    }
}

type Frame<R> = ruzstd::decoding::StreamingDecoder<R, ruzstd::decoding::FrameDecoder>;

/// A zstd stream of any number of frames.
struct Zstd<R: BufRead> {
    source: Option<R>,
    frame: Option<Box<Frame<R>>>,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let n = frame.read(buf)?;
                if n > 0 || buf.is_empty() {
                    return Ok(n);
                }
                self.source = self.frame.take().map(|frame| frame.into_inner());
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            if source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let frame = Frame::new_with_max_window_size(source, MAX_WINDOW).map_err(io::Error::other)?;
            self.frame = Some(Box::new(frame));
        }
    }
}
