//! A libp2p peer that misbehaves on purpose. It holds the network key and nothing else, and shares no code with the core:
//! what it sends is what a stranger's own program could send. A test may have it join by the proofs that members make;
//! then it is a member that proposes whatever it likes.
//!
//! `chorus-hostile NETWORK_KEY_HEX MULTIADDR [IDENTITIES [once]]` connects so many identities to one agent and prints
//! `{"peers": [...]}`. Identities whose connection closes dial again, but for `once`; there it is also no error when some
//! are not connected any more. Then each line of JSON on its standard input is a command ([`command::Command`]), answered
//! by one line of JSON on its standard output, in order. It ends when its standard input does.

mod command;
mod identity;

use std::process::ExitCode;

use futures::future::join_all;
use libp2p::Multiaddr;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use command::Command;
use identity::Identity;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chorus-hostile: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [key, address, more @ ..] = words.as_slice() else {
        return Err("usage: chorus-hostile NETWORK_KEY_HEX MULTIADDR [IDENTITIES [once]]".into());
    };
    let key: [u8; 32] = hex::decode(key)?.try_into().map_err(|_| "the network key has 32 bytes")?;
    let address: Multiaddr = address.parse()?;
    let count: usize = more.first().map_or(Ok(1), |text| text.parse())?;
    let once = more.get(1).is_some_and(|word| word == "once");
    let mut identities = Vec::with_capacity(count);
    for _ in 0..count {
        identities.push(Identity::start(key, address.clone(), !once)?);
    }
    for connected in join_all(identities.iter_mut().map(Identity::connected)).await {
        if !once {
            connected?;
        }
    }
    let peers: Vec<String> = identities.iter().map(|identity| identity.peer.to_string()).collect();
    println!("{}", json!({ "peers": peers }));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str::<Command>(&line) {
            Ok(command) => command.carry_out(&mut identities).await,
            Err(error) => json!({"error": format!("not a command: {error}")}),
        };
        println!("{answer}");
    }
    Ok(())
}
