//! Values above one record: written as blocks and read again, a bounded number of them at a time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use libp2p::PeerId;

use super::{
    facade::Inner,
    key::{Kind, RecordKey, content_hash},
    manifest::{BLOCK_BYTES, Manifest},
    record::Header,
    search::Search,
};
use crate::{Error, Result};

/// Blocks on their way at once, each way: together less than 1 MiB in memory.
const IN_FLIGHT: usize = 12;

impl Inner {
    /// Writes the blocks of a value; answers with the least number of other agents that have one of them by now.
    pub async fn write_blocks(self: &Arc<Self>, of: &Header, manifest: &Manifest, value: &[u8]) -> Result<usize> {
        let writes = (0..manifest.blocks.len()).map(|at| async move {
            let begin = at * BLOCK_BYTES;
            let block = &value[begin..begin + manifest.block_bytes(at)];
            let name = hex::encode(manifest.blocks[at]);
            let key = RecordKey { kind: Kind::Block, name: name.clone() };
            let header = Header {
                blocks: None,
                hash: name.clone(),
                kind: Kind::Block.as_str().into(),
                name,
                // Kept as long as what it is a piece of.
                of: (of.kind == Kind::Agent.as_str()).then(|| of.kind.clone()),
                ..of.clone()
            };
            Ok::<_, Error>(self.write_record(&key, &header, block).await?.replicas)
        });
        let replicas = stream::iter(writes).buffer_unordered(IN_FLIGHT);
        replicas.try_fold(usize::MAX, |least, replicas| async move { Ok(least.min(replicas)) }).await
    }

    /// Reads the blocks of a value whose record is `header`, each checked, and the whole against the record.
    pub async fn read_blocks(
        self: &Arc<Self>,
        key: &RecordKey,
        header: &Header,
        manifest: &Manifest,
        from: &[PeerId],
    ) -> Result<Bytes> {
        // The author has what it wrote, if nobody else does.
        let mut hints = from.to_vec();
        hints.extend(header.author.parse::<PeerId>().ok().filter(|author| !from.contains(author)));
        let hints = &hints;
        let reads = (0..manifest.blocks.len()).map(|at| async move {
            let name = hex::encode(manifest.blocks[at]);
            let label = || format!("block {} of {} of {key} (/chorus/block/{name})", at + 1, manifest.blocks.len());
            let block = RecordKey { kind: Kind::Block, name: name.clone() };
            let found = self.find(&block, hints, &mut Search::default()).await.map_err(|e| named(e, &label()))?;
            if found.plain.len() != manifest.block_bytes(at) {
                return Err(Error::Tampered(format!("{} has the wrong size", label())));
            }
            Ok(found.plain)
        });
        let mut reads = stream::iter(reads).buffered(IN_FLIGHT);
        let mut whole = BytesMut::with_capacity(manifest.size);
        while let Some(block) = reads.try_next().await? {
            whole.extend_from_slice(&block);
        }
        if content_hash(&whole) != header.hash {
            return Err(Error::Tampered(format!("the content of {key} is not what its author signed")));
        }
        Ok(whole.freeze())
    }
}

/// The same error, said of a block.
fn named(error: Error, block: &str) -> Error {
    match error {
        Error::NotFound(_) => Error::NotFound(block.into()),
        Error::Tampered(why) => Error::Tampered(format!("{block}: {why}")),
        Error::NotPermitted(why) => Error::NotPermitted(format!("{block}: {why}")),
        Error::Timeout(why) => Error::Timeout(format!("{block}: {why}")),
        other => other,
    }
}
