//! Which driver moves a broker's bytes better: epoll through tokio, or tokio-uring?
//!
//! Guards: epoll by default. Asynchronous flush, so that the network and not the disk is compared; one client thread, closed loop, requests
//! written in bursts. The second driver's rows need the feature `net-uring`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anchorlog::broker::{Broker, BrokerOptions, Driver};
use anchorlog::wire::Encoding;
use anchorlog::wire::frame::announced_bytes;
use anchorlog::wire::header::Head;
use anchorlog_benches::{bounded, directory, disk_criterion, noise, timed};
use anchorlog_engine::Flush;
use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn request(opaque: i32, body: &[u8], out: &mut BytesMut) {
    let mut frame = Head::request(Encoding::Json, 310, opaque).encode(out);
    for (name, value) in [
        ("a", "bench"),
        ("b", "bench"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
    ] {
        frame.field(name, value);
    }
    frame.finish(body).expect("it fits a frame");
}

/// Sends a burst on each connection, then reads all answers; returns how many came.
fn round(connections: &mut [TcpStream], burst: &[u8], answers: usize, buffer: &mut Vec<u8>) {
    for connection in connections.iter_mut() {
        connection.write_all(burst).expect("the broker reads");
    }
    for connection in connections {
        let mut seen = 0;
        buffer.clear();
        while seen < answers {
            let mut piece = [0; 64 << 10];
            let count = connection.read(&mut piece).expect("the broker answers");
            assert!(count > 0, "the broker closed the connection");
            buffer.extend_from_slice(&piece[..count]);
            let mut at = 0;
            while let Ok(Some(len)) = announced_bytes(&buffer[at..])
                && buffer.len() - at >= len
            {
                at += len;
                seen += 1;
            }
            buffer.drain(..at);
        }
    }
}

fn drive(criterion: &mut Criterion, name: &str, driver: Driver) {
    let dir = directory();
    let engine = bounded().with_flush(Flush::async_default());
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = BrokerOptions { listen, engine, driver, ..BrokerOptions::new(dir.path()) };
    let broker = Broker::start(options).expect("the broker starts");
    let mut group = criterion.benchmark_group("send over TCP, async flush");
    for (connections, pipelined) in [(1, 1), (1, 64), (16, 1), (16, 16)] {
        let mut streams: Vec<TcpStream> = (0..connections)
            .map(|_| {
                let stream = TcpStream::connect(broker.address()).expect("the broker listens");
                stream.set_nodelay(true).expect("a socket option");
                stream
            })
            .collect();
        let mut burst = BytesMut::new();
        let body = noise(1024);
        (0..pipelined).for_each(|opaque| request(opaque, &body, &mut burst));
        let answers = usize::try_from(pipelined).expect("small");
        let mut buffer = Vec::new();
        group.throughput(Throughput::Elements((connections * answers) as u64));
        group.bench_function(BenchmarkId::new(name, format!("{connections} x {pipelined}")), |bench| {
            bench.iter_custom(|rounds| {
                timed(|| (0..rounds).for_each(|_| round(&mut streams, &burst, answers, &mut buffer)))
            });
        });
    }
    group.finish();
    broker.stop().expect("the broker stops");
}

fn drivers(criterion: &mut Criterion) {
    drive(criterion, "epoll", Driver::Epoll);
    #[cfg(feature = "net-uring")]
    drive(criterion, "tokio-uring", Driver::Uring);
}

criterion_group! { name = benches; config = disk_criterion(); targets = drivers }
criterion_main!(benches);
