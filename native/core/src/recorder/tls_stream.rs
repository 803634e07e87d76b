//! An encrypted connection that still hears a peer to which nothing can be written any more.
//!
//! A server that refuses a certificate, or answers before it has read all, says so and hangs up. Reading with rustls's own
//! stream would first write what is left, fail with a broken pipe, and never come to what was said.

use std::io::{self, Read, Write};

use rustls::{ClientConnection, Stream};

pub struct TlsStream<S> {
    session: ClientConnection,
    socket: S,
}

impl<S: Read + Write> TlsStream<S> {
    pub fn handshake(mut session: ClientConnection, mut socket: S) -> io::Result<Self> {
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self { session, socket })
    }
}

impl<S: Read + Write> Read for TlsStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read_or_ended => return read_or_ended,
            }
            self.session.read_tls(&mut self.socket)?;
            if let Err(error) = self.session.process_new_packets() {
                // The alert that tells the peer; what went wrong is told whether it arrives or not.
                let _ = self.session.write_tls(&mut self.socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

impl<S: Read + Write> Write for TlsStream<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Stream::new(&mut self.session, &mut self.socket).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Stream::new(&mut self.session, &mut self.socket).flush()
    }
}
