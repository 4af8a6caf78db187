// js-libp2p 3 expects Node.js 22; the one thing it misses on Node.js 20 is this. Imported before everything else.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
