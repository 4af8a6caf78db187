// Reads an agent's log with the JavaScript Hypercore, and lets that verify it: the log is copied into a second core that
// knows nothing but the public key, entry by entry with its proofs, as one Hypercore gets it from another. What arrives
// there is printed, a line of JSON each; the public key and the number of entries go to standard error.
//
//   node read.mjs FOLDER     FOLDER: a copy of core/log in the agent's data folder, as Hypercore may write to it
//
// Exit codes: 0 all there and genuine, 1 not.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Hypercore from 'hypercore'

const COPY_MS = 120_000

const folder = process.argv[2]
if (!folder) {
  console.error('usage: node read.mjs FOLDER')
  process.exit(2)
}

const log = new Hypercore(folder, { createIfMissing: false })
await log.ready()
console.error(`key ${log.key.toString('hex')}, ${log.length} entries, fork ${log.fork}`)

const scratch = await mkdtemp(join(tmpdir(), 'js-log-'))
// Ends the program where a proof that does not fit would leave it waiting for the next one.
const late = setTimeout(() => fail(new Error('the copy did not come to its end')), COPY_MS)
const copy = new Hypercore(scratch, log.key, { compat: true })
try {
  copy.on('verification-error', fail)
  await copy.ready()
  const from = log.replicate(true)
  const to = copy.replicate(false)
  from.on('error', fail)
  to.on('error', fail)
  from.pipe(to).pipe(from)
  while (copy.length < log.length) await copy.update({ wait: true })
  await copy.download({ start: 0, end: log.length }).done()
  for (let number = 0; number < log.length; number++) {
    console.log(JSON.stringify(JSON.parse(await copy.get(number, { wait: false }))))
  }
  from.destroy()
  to.destroy()
  await copy.close()
  await log.close()
} catch (error) {
  await fail(error)
}
clearTimeout(late)
await rm(scratch, { recursive: true, force: true })

async function fail (error) {
  console.error(`not genuine, or not readable: ${error.message}`)
  await rm(scratch, { recursive: true, force: true })
  process.exit(1)
}
