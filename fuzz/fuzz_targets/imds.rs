//! Requests to the metadata service. The first byte says how they are cut when they come.
#![no_main]

use std::sync::{Arc, LazyLock};

use amiable::imds::{Connection, Metadata, Service, system_clock};

static SERVICE: LazyLock<Arc<Service>> =
    LazyLock::new(|| Arc::new(Service::new(Metadata::example(), None, system_clock())));

/// More calls than the most requests that can wait at once.
const MOST_CALLS: usize = 10_000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let size = if *first == 0 { bytes.len().max(1) } else { usize::from(*first) * 16 };
    let mut connection = Connection::new(Arc::clone(&SERVICE));
    let mut reply = Vec::new();
    for piece in bytes.chunks(size) {
        let mut outcome = connection.receive(piece, &mut reply);
        for call in 0.. {
            assert!(reply.len() < 256 << 10 && call < MOST_CALLS);
            reply.clear();
            if outcome.close || !outcome.pending {
                break;
            }
            outcome = connection.receive(&[], &mut reply);
        }
    }
});
