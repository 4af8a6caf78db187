//! Figures, not assertions: `cargo test --release net::tests::bench -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt};

use super::kit::{PATIENCE, node, node_beside};

const TOTAL: usize = 1024 * 1024 * 1024;
const CHUNK: usize = 256 * 1024;

/// CPU time of this process: what a rate is worth on a busy machine.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark"]
async fn one_stream_between_two_nodes() {
    let a = node().await;
    let b = node_beside(&a).await;
    let mut streams = b.net.take_streams().unwrap();
    for _ in 0..3 {
        let open = a.net.open_stream(b.peer(), "s", "m", Bytes::new(), PATIENCE);
        let take = async {
            let incoming = streams.recv().await.unwrap();
            incoming.answer.send(Ok(())).unwrap();
            incoming.stream
        };
        let (stream, mut served) = futures::join!(open, take);
        let mut stream = stream.unwrap();
        let (start, cpu_before) = (Instant::now(), cpu());
        let sender = tokio::spawn(async move {
            let chunk = vec![7; CHUNK];
            for _ in 0..TOTAL / CHUNK {
                stream.write_all(&chunk).await.unwrap();
            }
            stream.close().await.unwrap();
        });
        let (mut buffer, mut got) = (vec![0; CHUNK], 0);
        loop {
            match served.read(&mut buffer).await.unwrap() {
                0 => break,
                read => got += read,
            }
        }
        sender.await.unwrap();
        assert_eq!(got, TOTAL);
        let rate = got as f64 / start.elapsed().as_secs_f64() / 1e6;
        let cost = (cpu() - cpu_before).as_secs_f64() / (got as f64 / 1e9);
        println!("one stream: {rate:.0} MB/s; {cost:.2} s of CPU time per GB, both ends together");
    }
}
