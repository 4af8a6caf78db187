// The network key of a cluster and the ids of tasks, as docs/protocol.md gives them.
import { hkdfSync, randomBytes } from 'node:crypto'

const derive = (secret, info) => Buffer.from(hkdfSync('sha256', secret, '', info, 32))

/** The pre-shared key of the private network, in the text form that @libp2p/pnet reads. */
export function networkKey ({ secret, license }) {
  const root = secret ? Buffer.from(secret) : derive(license, 'chorus/v1/dev-cluster')
  const key = derive(root, 'chorus/v1/network')
  return Buffer.from(`/key/swarm/psk/1.0.0/\n/base16/\n${key.toString('hex')}`)
}

/** 48 bits of milliseconds and 80 random bits in 26 characters of Crockford's base 32. */
export function ulid (now = Date.now()) {
  const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
  let value = (BigInt(now) << 80n) | BigInt('0x' + randomBytes(10).toString('hex'))
  let text = ''
  for (let i = 0; i < 26; i++) {
    text = alphabet[Number(value & 31n)] + text
    value >>= 5n
  }
  return text
}
