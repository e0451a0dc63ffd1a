//! Responses as EC2 writes them.

use std::borrow::Cow;

use jiff::Timestamp;

/// An answer before it is bytes.
pub(super) struct Response<'a> {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Cow<'a, [u8]>,
    /// Seconds that the token has left.
    pub(super) token_ttl: Option<u32>,
    /// Methods that would be allowed.
    pub(super) allow: Option<&'static str>,
    /// Seconds since 1970.
    pub(super) last_modified: Option<i64>,
    /// IP hops that this response may travel.
    pub(super) hop_limit: Option<u8>,
}

const TEXT: &str = "text/plain";

impl<'a> Response<'a> {
    pub(super) fn text(body: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            status: 200,
            content_type: TEXT,
            body: body.into(),
            token_ttl: None,
            allow: None,
            last_modified: None,
            hop_limit: None,
        }
    }

    pub(super) fn octets(body: &'a [u8]) -> Self {
        Self { content_type: "application/octet-stream", ..Self::text(body) }
    }

    /// An error's page. Scripts look for its text.
    pub(super) fn error(status: u16) -> Self {
        let title = format!("{status} - {}", reason(status));
        let page = format!(
            "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
             <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
             \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
             <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
             <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
        );
        Self { status, content_type: "text/html", ..Self::text(page.into_bytes()) }
    }

    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::error(405) }
    }

    /// Append the response. `head_only` leaves the body out, as HEAD asks.
    pub(super) fn write(&self, now: Timestamp, head_only: bool, connection: Option<&str>, reply: &mut Vec<u8>) {
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            use std::io::Write as _;
            // Writing to a vector can't fail.
            let _ = write!(reply, "{name}{value}\r\n");
        };
        line("HTTP/1.1 ", &format_args!("{} {}", self.status, reason(self.status)));
        line("Content-Type: ", &self.content_type);
        line("Accept-Ranges: ", &"none");
        if let Some(time) = self.last_modified {
            line("Last-Modified: ", &http_date(Timestamp::from_second(time).unwrap_or_default()));
        }
        if let Some(ttl) = self.token_ttl {
            line("X-Aws-Ec2-Metadata-Token-Ttl-Seconds: ", &ttl);
        }
        if let Some(allow) = self.allow {
            line("Allow: ", &allow);
        }
        line("Content-Length: ", &self.body.len());
        line("Date: ", &http_date(now));
        line("Server: ", &"EC2ws");
        if let Some(value) = connection {
            line("Connection: ", &value);
        }
        reply.extend_from_slice(b"\r\n");
        if !head_only {
            reply.extend_from_slice(&self.body);
        }
    }
}

/// `Fri, 20 Nov 2026 22:25:12 GMT` (RFC 9110 §5.6.7)
fn http_date(time: Timestamp) -> impl std::fmt::Display {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Internal Server Error",
    }
}
