//! Requests to the metadata service, and look-ups of instance types.

use std::hint::black_box;
use std::sync::Arc;

use amiable::ec2::instance_types;
use amiable::imds::{Connection, Metadata, Service, system_clock};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("imds");
    group.throughput(Throughput::Elements(1));
    let service = Arc::new(Service::new(Metadata::example(), None, system_clock()));
    let mut connection = Connection::new(service);
    let mut reply = Vec::new();
    let put = "PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\
        X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n";
    connection.receive(put.as_bytes(), &mut reply);
    let text = String::from_utf8_lossy(&reply).into_owned();
    let token = text.rsplit("\r\n").next().unwrap_or_default();
    let get = |path: &str| {
        format!(
            "GET /latest/{path} HTTP/1.1\r\nHost: 169.254.169.254\r\nUser-Agent: bench\r\nAccept: */*\r\n\
             X-aws-ec2-metadata-token: {token}\r\n\r\n"
        )
    };
    for (name, request) in [
        ("token", put.to_owned()),
        ("leaf", get("meta-data/instance-id")),
        ("listing", get("meta-data/")),
        ("user-data", get("user-data")),
        ("not found", get("meta-data/nowhere")),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                reply.clear();
                black_box(connection.receive(request.as_bytes(), &mut reply));
            });
        });
    }
    group.finish();
}

fn types(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("instance types");
    group.bench_function("find", |bencher| bencher.iter(|| instance_types::find(black_box("m7i.4xlarge"))));
    group.bench_function("all", |bencher| bencher.iter(|| instance_types::all().count()));
    group.finish();
}

criterion_group!(benches, requests, types);
criterion_main!(benches);
