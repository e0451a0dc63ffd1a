//! A small HTTP server for tests, on 127.0.0.1, with the faults that real ones have.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server has under a path.
#[derive(Clone, Default)]
pub struct Page {
    pub status: u16,
    pub body: Vec<u8>,
    pub etag: Option<&'static str>,
    pub ranges: bool,
    pub location: Option<String>,
    /// Hang up after so many bytes of the body, in the first answers.
    pub cuts: Vec<usize>,
    /// Status of the first answers, before the page works.
    pub failures: Vec<u16>,
}

impl Page {
    pub fn ok(body: impl Into<Vec<u8>>) -> Page {
        Page { status: 200, body: body.into(), etag: Some("\"v1\""), ranges: true, ..Page::default() }
    }
}

/// A request as it came: path, Range and If-Range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
}

type Pages = Arc<Mutex<Vec<(String, Page)>>>;

pub struct Server {
    pub url: String,
    pages: Pages,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server { url, pages: Pages::default(), requests: Arc::default() };
        let (pages, requests) = (server.pages.clone(), server.requests.clone());
        // It ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = answer(stream, &pages, &requests);
            }
        });
        server
    }

    pub fn put(&self, path: &str, page: Page) -> String {
        let mut pages = self.pages.lock().unwrap();
        pages.retain(|(known, _)| known != path);
        pages.push((path.into(), page));
        format!("{}{path}", self.url)
    }

    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, pages: &Pages, requests: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut request = Request::default();
    for (i, line) in BufReader::new(&stream).lines().enumerate() {
        let line = line?;
        if i == 0 {
            request.path = line.split(' ').nth(1).unwrap_or_default().into();
        }
        match line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value)) {
            Some((name, value)) if name == "range" => request.range = Some(value.into()),
            Some((name, value)) if name == "if-range" => request.if_range = Some(value.into()),
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    requests.lock().unwrap().push(request.clone());
    let mut pages = pages.lock().unwrap();
    let Some((_, page)) = pages.iter_mut().find(|(path, _)| *path == request.path) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let mut status = page.status;
    if !page.failures.is_empty() {
        status = page.failures.remove(0);
    }
    let mut head = String::new();
    let mut body = &page.body[..];
    if status == 200 && page.ranges && request.if_range.is_none_or(|validator| Some(&*validator) == page.etag) {
        let start = request.range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        if let Some(start) = start {
            let total = page.body.len();
            if start >= total {
                (status, body) = (416, &[]);
                head += &format!("Content-Range: bytes */{total}\r\n");
            } else {
                (status, body) = (206, &page.body[start..]);
                head += &format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1);
            }
        }
    }
    if let Some(etag) = page.etag {
        head += &format!("ETag: {etag}\r\n");
    }
    if let Some(location) = &page.location {
        head += &format!("Location: {location}\r\n");
    }
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{head}\r\n", body.len())?;
    let cut = if page.cuts.is_empty() { body.len() } else { page.cuts.remove(0).min(body.len()) };
    stream.write_all(&body[..cut])
}
