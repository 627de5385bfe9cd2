//! A stream reader that notices a stop while the stream is silent.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// One read's size, bytes.
const PIECE: usize = 256 * 1024;
/// Pieces that may wait to be taken.
const WAITING: usize = 2;
/// How long a stop may go unseen.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The stream, read by a thread of its own. It ends when it ends, or when it is stopped: the
/// thread may then wait for its next byte until the process ends.
pub(super) struct Stoppable {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
    stop: Arc<AtomicBool>,
}

impl Stoppable {
    /// Opens and reads in the thread: also opening a named pipe waits, for its writer.
    pub(super) fn new<R: Read>(
        open: impl FnOnce() -> io::Result<R> + Send + 'static,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<Stoppable> {
        let (to, pieces) = sync_channel(WAITING);
        let run = move || match open() {
            Ok(reader) => read(reader, &to),
            Err(error) => drop(to.send(Err(error))),
        };
        std::thread::Builder::new().name("stream".to_owned()).spawn(run)?;
        Ok(Stoppable { pieces, piece: io::Cursor::default(), stop: Arc::clone(stop) })
    }
}

/// Hands over what is read, until the end or until nobody takes it.
fn read(mut reader: impl Read, to: &SyncSender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; PIECE];
    loop {
        let piece = match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => Ok(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        if to.send(piece).is_err() || failed {
            return;
        }
    }
}

impl Read for Stoppable {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let taken = self.piece.read(room)?;
            if taken > 0 || room.is_empty() || self.stop.load(Ordering::Relaxed) {
                return Ok(taken);
            }
            match self.pieces.recv_timeout(LOOK_EVERY) {
                Ok(piece) => self.piece = io::Cursor::new(piece?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_stream_is_read() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
        let (given, stop) = (bytes.clone(), Arc::new(AtomicBool::new(false)));
        let mut stream = Stoppable::new(move || Ok(io::Cursor::new(given)), &stop).unwrap();
        let mut found = Vec::new();
        stream.read_to_end(&mut found).unwrap();
        assert!(found == bytes);
    }

    #[test]
    fn a_silent_stream_ends_when_it_is_stopped() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut stream = Stoppable::new(move || Ok(reader), &stop).unwrap();
        io::Write::write_all(&mut writer, b"seven").unwrap();
        let mut room = [0; 10];
        assert_eq!(stream.read(&mut room).unwrap(), 5);
        let stopper = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                std::thread::sleep(Duration::from_millis(50));
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert_eq!(stream.read(&mut room).unwrap(), 0);
        stopper.join().unwrap();
    }

    #[test]
    fn error_is_returned() {
        let stop = Arc::new(AtomicBool::new(false));
        let open = || Err::<io::Empty, _>(io::Error::other("no such stream"));
        let error = Stoppable::new(open, &stop).unwrap().read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "no such stream");
    }
}
