//! Request targets (RFC 9112 §3.2) as the service reads them: liberally.

/// What is wrong with a request target.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadTarget;

/// The path of a request target: decoded, without query, empty segments and slashes at its ends. Text that is not
/// UTF-8 becomes a path that nothing has.
pub(super) fn normalise(target: &str) -> Result<String, BadTarget> {
    let path = match target.split_once("://") {
        // The absolute form, which clients send to proxies.
        Some(("http", rest)) => rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/"),
        _ => target,
    };
    if !path.starts_with('/') {
        return Err(BadTarget);
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else { return Err(BadTarget) };
            (high * 16 + low) as u8
        } else {
            byte
        };
        // No empty segments, so none at the start either.
        if byte != b'/' || decoded.last().is_some_and(|last| *last != b'/') {
            decoded.push(byte);
        }
    }
    if decoded.last() == Some(&b'/') {
        decoded.pop();
    }
    Ok(String::from_utf8(decoded).unwrap_or_else(|_| "\u{fffd}".to_owned()))
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
