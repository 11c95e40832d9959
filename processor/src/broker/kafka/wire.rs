//! One connection to one broker: frames, versions, deadlines.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// The largest answer that is read: a broken length must not take the memory.
const MAX_FRAME: usize = 64 << 20;
/// ApiVersions with names of client and version; brokers since Kafka 2.4 know it.
const API_VERSIONS: i16 = 3;

/// The versions of a request that are spoken here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions {
    /// Below it a field that is needed is missing.
    pub(super) floor: i16,
    /// Above it nothing is needed.
    pub(super) ceiling: i16,
}

/// A connection that sends a request and waits for its answer.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    client_id: StrBytes,
    correlation: i32,
    // Oldest and newest version the broker knows, by API key.
    versions: HashMap<i16, (i16, i16)>,
    frame: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port` and learns the broker's versions.
    pub(super) fn open(address: &str, client_id: &str, deadline: Instant) -> Result<Self> {
        let mut last = Error::new(ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&resolved, left(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let mut connection = Self {
                        stream,
                        client_id: StrBytes::from_string(client_id.to_owned()),
                        correlation: 0,
                        versions: HashMap::new(),
                        frame: Vec::new(),
                    };
                    connection.learn_versions(deadline)?;
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A second handle on the socket, with which another thread can shut it down.
    pub(super) fn handle(&self) -> Result<TcpStream> {
        self.stream.try_clone()
    }

    fn learn_versions(&mut self, deadline: Instant) -> Result<()> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("headwater"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let answer = self.exchange(&request, API_VERSIONS, deadline)?;
        if answer.error_code != 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the broker refuses ApiVersions {API_VERSIONS} with code {}", answer.error_code),
            ));
        }
        self.versions = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(())
    }

    /// Sends a request in the newest version that both sides know and waits for its answer until `deadline`.
    pub(super) fn call<R: Request>(
        &mut self,
        request: &R,
        versions: Versions,
        deadline: Instant,
    ) -> Result<R::Response> {
        let (oldest, newest) = self.versions.get(&R::KEY).copied().unwrap_or((0, -1));
        let version = choose(versions, oldest, newest).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the broker speaks versions {oldest} to {newest} of request {}, needed is one of {} to {}: Kafka 3.2 \
                     or newer",
                    R::KEY,
                    versions.floor,
                    versions.ceiling
                ),
            )
        })?;
        self.exchange(request, version, deadline)
    }

    fn exchange<R: Request>(&mut self, request: &R, version: i16, deadline: Instant) -> Result<R::Response> {
        self.correlation = self.correlation.wrapping_add(1);
        encode(&mut self.frame, &self.client_id, self.correlation, request, version)?;
        self.stream.set_write_timeout(Some(left(deadline)?))?;
        self.stream.write_all(&self.frame)?;
        self.read_frame(deadline)?;
        decode::<R>(&self.frame, self.correlation, version)
    }

    fn read_frame(&mut self, deadline: Instant) -> Result<()> {
        let mut length = [0; 4];
        self.fill(&mut length, deadline)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(Error::new(ErrorKind::InvalidData, format!("an answer of {length} bytes")));
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.resize(length, 0);
        let filled = self.fill(&mut frame, deadline);
        self.frame = frame;
        filled
    }

    /// Reads exactly so many bytes. The time left is set anew for every read, so that a trickle cannot stretch it.
    fn fill(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(Error::new(ErrorKind::UnexpectedEof, "the broker closed the connection")),
                Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The time until `deadline`; an error once it has passed (a timeout of zero would mean "for ever").
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::new(ErrorKind::TimedOut, "the time allowed is over"));
    }
    Ok(left)
}

/// The newest version in both ranges.
fn choose(ours: Versions, oldest: i16, newest: i16) -> Option<i16> {
    let version = ours.ceiling.min(newest);
    (version >= ours.floor && version >= oldest).then_some(version)
}

fn encode<R: Request>(
    frame: &mut Vec<u8>,
    client_id: &StrBytes,
    correlation: i32,
    request: &R,
    version: i16,
) -> Result<()> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    frame.clear();
    frame.extend_from_slice(&[0; 4]);
    header
        .encode(frame, R::header_version(version))
        .and_then(|()| request.encode(frame, version))
        .map_err(|error| Error::new(ErrorKind::InvalidInput, format!("request {}: {error}", R::KEY)))?;
    let length = i32::try_from(frame.len().saturating_sub(4))
        .map_err(|_| Error::new(ErrorKind::InvalidInput, format!("request {} is longer than 2 GiB", R::KEY)))?;
    if let Some(prefix) = frame.get_mut(..4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn decode<R: Request>(mut frame: &[u8], correlation: i32, version: i16) -> Result<R::Response> {
    let broken = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::InvalidData, format!("the answer to request {} cannot be read: {error}", R::KEY))
    };
    let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).map_err(|e| broken(&e))?;
    if header.correlation_id != correlation {
        return Err(broken(&format_args!("it is the answer to {} instead of {correlation}", header.correlation_id)));
    }
    R::Response::decode(&mut frame, version).map_err(|e| broken(&e))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{GroupId, HeartbeatRequest, HeartbeatResponse};

    use super::*;

    #[test]
    fn a_frame_begins_with_length_key_version_and_correlation() {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("g")))
            .with_generation_id(7)
            .with_member_id(StrBytes::from_static_str("m"));
        let mut frame = Vec::new();
        encode(&mut frame, &StrBytes::from_static_str("me"), 5, &request, 4).unwrap();
        let length = u8::try_from(frame.len() - 4).unwrap();
        assert_eq!(frame[..14], [0, 0, 0, length, 0, 12, 0, 4, 0, 0, 0, 5, 0, 2]);
        // Client id, no tags; then compact strings and the generation.
        assert_eq!(frame[14..], *b"me\x00\x02g\x00\x00\x00\x07\x02m\x00\x00");
    }

    #[test]
    fn an_answer_to_another_request_is_refused() {
        let mut frame = Vec::new();
        ResponseHeader::default().with_correlation_id(6).encode(&mut frame, 1).unwrap();
        HeartbeatResponse::default().with_error_code(27).encode(&mut frame, 4).unwrap();
        assert_eq!(decode::<HeartbeatRequest>(&frame, 6, 4).unwrap().error_code, 27);
        assert_eq!(decode::<HeartbeatRequest>(&frame, 5, 4).unwrap_err().kind(), ErrorKind::InvalidData);
        frame.truncate(3);
        assert_eq!(decode::<HeartbeatRequest>(&frame, 6, 4).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let ours = Versions { floor: 8, ceiling: 9 };
        assert_eq!(choose(ours, 0, 10), Some(9));
        assert_eq!(choose(ours, 2, 8), Some(8));
        assert_eq!(choose(ours, 2, 7), None);
        assert_eq!(choose(ours, 10, 12), None);
        assert_eq!(choose(ours, 0, -1), None);
    }
}
