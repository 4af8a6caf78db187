// The calls of an agent, by method and by the whole target of the request line, query and all.
//
// Containers and execs are reached by their full ids alone, never by name or by the beginning of an id.
// Versions of the API before 1.41 are refused: there, `start` takes settings that nobody here judges.

import bodies from 'bodies.js';

const NAME = '[A-Za-z0-9_.-]+';
const IMAGE = '(?<image>[a-z0-9](?:[A-Za-z0-9._:@-]|/[A-Za-z0-9]|%40)*)';
const FROM = '(?<from>[a-z0-9](?:[A-Za-z0-9._-]|%2F|%3A)*)';
const TAG = '(?<tag>(?:sha256%3A)?[A-Za-z0-9_][A-Za-z0-9._-]*)';
const CONTAINER = '/containers/(?<container>[0-9a-f]{64})';
const EXEC = '/exec/(?<exec>[0-9a-f]{64})';
const MINE = '%7B%22label%22%3A(?:%20|\\+)?%5B%22chorus\\.peer%3D(?<peer>[A-Za-z0-9_-]+)%22%5D%7D';
const REMOVING = '(?:v=(?:True|False)|link=False|force=(?:True|False))';

// body: the shape that a body must have; without one none may come. session: the connection becomes a stream.
function call(method, target, more) {
    const pattern = new RegExp(`^(?<version>/v1\\.(?:4[1-9]|[5-9][0-9]))${target}$`);
    return Object.assign({method, pattern, body: null, session: false}, more);
}

const CALLS = [
    {method: 'GET', pattern: /^(?:\/v1\.[0-9]{1,3})?\/(?:_ping|version)$/, body: null, session: false},
    {method: 'HEAD', pattern: /^(?:\/v1\.[0-9]{1,3})?\/_ping$/, body: null, session: false},
    call('GET', `/images/${IMAGE}/json`),
    call('POST', `/images/create\\?tag=${TAG}&fromImage=${FROM}`),
    call('GET', `/containers/json\\?(?:(?:limit|all|size|trunc_cmd)=-?[0-9]+&)*filters=${MINE}`),
    call('GET', `${CONTAINER}/json`),
    call('GET', `${CONTAINER}/stats(?:\\?stream=[A-Za-z0-9]+)?`),
    call('POST', `${CONTAINER}/(?:start|kill)`),
    call('POST', `${CONTAINER}/rename\\?name=${NAME}`),
    call('DELETE', `${CONTAINER}(?:\\?${REMOVING}(?:&${REMOVING})*)?`),
    call('GET', `${EXEC}/json`),
    call('POST', `/containers/create(?:\\?name=${NAME})?`, {body: bodies.container}),
    call('POST', `${CONTAINER}/update`, {body: bodies.limits}),
    call('POST', `${CONTAINER}/exec`, {body: bodies.session}),
    call('POST', `${EXEC}/start`, {body: bodies.start, session: true}),
];

// Returns {call, names}: the call and what its target names, or null for no call of an agent.
function find(method, target) {
    for (let i = 0; i < CALLS.length; i++) {
        const found = CALLS[i].method === method ? CALLS[i].pattern.exec(target) : null;
        if (found) {
            return {call: CALLS[i], names: found.groups || {}};
        }
    }
    return null;
}

export default {find};
