// A member of a CHORUS mesh in JavaScript, written from docs/protocol.md alone: it connects with the network key,
// publishes one task on chorus/tasks and reads its completion on chorus/coordination/v1.
//
//   node member.mjs --license dev-123 --agent /ip4/127.0.0.1/tcp/9000/p2p/12D3… -- python3 -c 'print(6*7)'
//
// Exit codes: 0 completed, 1 failed, 2 no connection, 3 no answer in time.
import './node20.mjs'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { networkKey, ulid } from './keys.mjs'

const TASKS = 'chorus/tasks'
const COORDINATION = 'chorus/coordination/v1'
const CONNECT_MS = 15_000
const MESH_POLL_MS = 50

const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { gossipsub } = await import('@libp2p/gossipsub')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { preSharedKey } = await import('@libp2p/pnet')
const { multiaddr } = await import('@multiformats/multiaddr')

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    agent: { type: 'string' },
    license: { type: 'string', default: 'dev-123' },
    secret: { type: 'string', default: process.env.CHORUS_CLUSTER_SECRET },
    'secret-file': { type: 'string', default: process.env.CHORUS_CLUSTER_SECRET_FILE },
    language: { type: 'string', default: 'python' },
    timeout: { type: 'string', default: '120' }
  }
})
if (!values.agent || positionals.length === 0) {
  console.error('usage: member.mjs --agent MULTIADDR [--secret-file FILE | --license dev-…] -- COMMAND…')
  process.exit(2)
}
if (!values.secret && values['secret-file']) {
  values.secret = readFileSync(values['secret-file'], 'utf8').replace(/\n$/, '')
}

const node = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionProtector: preSharedKey({ psk: networkKey(values) }),
  services: {
    identify: identify(),
    ping: ping(),
    pubsub: gossipsub({ globalSignaturePolicy: 'StrictSign', allowPublishToZeroTopicPeers: false })
  }
})
const { pubsub } = node.services
const me = node.peerId.toString()
const task = {
  task_id: ulid(),
  title: 'A task from JavaScript',
  language: values.language,
  commands: [positionals.map(word => `'${word.replaceAll("'", "'\\''")}'`).join(' ')],
  timeout_s: 60
}

async function leave (code) {
  // A connection that a wrong key left half open must not keep the program.
  await Promise.race([node.stop(), new Promise(resolve => setTimeout(resolve, 2000))])
  process.exit(code)
}

setTimeout(() => {
  console.error(`no completion of ${task.task_id} was heard`)
  leave(3)
}, Number(values.timeout) * 1000).unref()

pubsub.addEventListener('message', ({ detail }) => {
  if (detail.topic !== COORDINATION) return
  const text = new TextDecoder().decode(detail.data)
  let heard
  try { heard = JSON.parse(text) } catch { return }
  // The envelope speaks for its signer, or for nobody.
  if (heard.from !== detail.from?.toString() || heard.data?.task_id !== task.task_id) return
  if (heard.type !== 'task_complete' && heard.type !== 'task_failed') {
    console.error(heard.type, 'from', heard.from)
    return
  }
  console.log(text)
  leave(heard.type === 'task_complete' ? 0 : 1)
})
pubsub.subscribe(COORDINATION)

try {
  await node.dial(multiaddr(values.agent), { signal: AbortSignal.timeout(CONNECT_MS) })
} catch (error) {
  console.error('no connection:', error.message)
  await leave(2)
}
console.error('member', me, 'is connected')
// What is published before we are in the topic's gossip mesh may pass us by.
while (pubsub.getMeshPeers(COORDINATION).length === 0 || pubsub.getSubscribers(TASKS).length === 0) {
  await new Promise(resolve => setTimeout(resolve, MESH_POLL_MS))
}
const envelope = {
  type: 'task_announcement', from: me, timestamp: new Date().toISOString(), data: task
}
await pubsub.publish(TASKS, new TextEncoder().encode(JSON.stringify(envelope)))
console.error('published task', task.task_id)
