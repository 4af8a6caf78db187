// Judges each request: is it a call of an agent, framed and written as agents do, and about its own sandboxes
// and images? What is found good is handed on in the proxy's own words; all else is answered 403 with the
// reason, which is logged.

import calls from 'calls.js';
import bodies from 'bodies.js';
import settings from 'settings.js';

// As server.conf says it.
const NO_DAEMON = '{"message":"the Docker daemon behind the proxy does not answer"}';
const FOREIGN = 'a container without the label of an agent that this proxy serves';
const UNLISTED = 'no sandbox image: ' +
    'CHORUS_SANDBOX_IMAGES and CHORUS_SANDBOX_ALLOW of the proxy do not name it';

async function request(r) {
    try {
        await judge(r);
    } catch (error) {
        r.error(`judging failed: ${error.message}`);
        refuse(r, 'the proxy failed to judge it');
    }
}

async function judge(r) {
    const set = settings.read();
    if (set.wrong) {
        return refuse(r, set.wrong);
    }
    const found = calls.find(r.method, r.variables.request_uri);
    const odd = framing(r, found);
    if (odd) {
        return refuse(r, odd);
    }
    let value = null;
    if (found.call.body) {
        const said = bodies.read(r.requestText);
        const wrong = said.wrong || found.call.body(said.value).replace(/^\./, '').replace(/^ /, 'the body ');
        if (wrong) {
            return refuse(r, wrong);
        }
        value = said.value;
    }
    const about = await belongs(r, set, found.names, value);
    if (about.answer) {
        r.variables.judged = '-';
        return r.return(about.answer.status, about.answer.text);
    }
    if (about.wrong) {
        return refuse(r, about.wrong);
    }
    if (value === null) {
        return r.internalRedirect('@without_body');
    }
    r.variables.judged_body = JSON.stringify(value);
    r.internalRedirect(found.call.session ? '@session' : '@with_body');
}

function refuse(r, reason) {
    r.variables.judged = reason;
    r.headersOut['Content-Type'] = 'application/json';
    r.return(403, JSON.stringify({message: `refused by the proxy: ${reason}`}));
}

// What is odd about the request line and the head; '' for nothing.
function framing(r, found) {
    const head = r.headersIn;
    if (r.httpVersion !== '1.1') {
        return 'another version of HTTP than 1.1';
    }
    // The target could also be a whole address, or be set off by more than one space.
    if (r.variables.request !== `${r.method} ${r.variables.request_uri} HTTP/1.1`) {
        return 'a request line in another form than agents write';
    }
    if (!found) {
        return 'no such call for an agent';
    }
    if (head['Transfer-Encoding'] !== undefined) {
        return 'a body of unknown length (Transfer-Encoding)';
    }
    if (head['Content-Encoding'] !== undefined) {
        return 'a body in another encoding (Content-Encoding)';
    }
    if (head.Expect !== undefined) {
        return 'a body that waits to be asked for (Expect)';
    }
    const length = Number(head['Content-Length'] || 0);
    if (found.call.body && !length) {
        return 'no body where one belongs';
    }
    if (!found.call.body && length) {
        return 'a body where none belongs';
    }
    if (found.call.body && head['Content-Type'] !== 'application/json') {
        return 'a body that is not application/json (Content-Type)';
    }
    if (found.call.session) {
        return head.Upgrade === 'tcp' ? '' : 'a session without Upgrade: tcp';
    }
    return head.Upgrade === undefined ? '' : 'an Upgrade where none belongs';
}

// ---- whose is it?

// Returns {wrong}: why it is not the agent's own, or '' when it is; or {answer}: what the daemon said instead
// of telling.
async function belongs(r, set, names, value) {
    if (names.peer !== undefined) {
        return {wrong: serves(set, names.peer) ? '' : FOREIGN};
    }
    if (names.image !== undefined) {
        return {wrong: listed(set, decodeURIComponent(names.image)) ? '' : UNLISTED};
    }
    if (names.from !== undefined) {
        const tag = decodeURIComponent(names.tag);
        const name = decodeURIComponent(names.from) + (tag.includes(':') ? '@' : ':') + tag;
        return {wrong: listed(set, name) ? '' : UNLISTED};
    }
    if (names.exec !== undefined) {
        const exec = await ask(r, `${names.version}/exec/${names.exec}/json`);
        return exec.answer ? exec : container(r, set, names.version, exec.value.ContainerID);
    }
    if (names.container !== undefined) {
        if (value !== null && value.Container !== undefined && value.Container !== names.container) {
            return {wrong: 'Container is another than that of the path'};
        }
        return container(r, set, names.version, names.container);
    }
    if (value !== null) {
        const own = serves(set, value.Labels['chorus.peer']);
        return own ? image(r, set, names.version, value.Image) : {wrong: FOREIGN};
    }
    return {wrong: ''};
}

async function container(r, set, version, id) {
    const found = await ask(r, `${version}/containers/${id}/json`);
    if (found.answer) {
        return found;
    }
    const labels = found.value.Config.Labels || {};
    return {wrong: serves(set, labels['chorus.peer']) ? '' : FOREIGN};
}

// An agent names the image of a sandbox by its id, as it found it behind a listed name.
async function image(r, set, version, name) {
    if (!/^sha256:[0-9a-f]{64}$/.test(name)) {
        return {wrong: listed(set, name) ? '' : UNLISTED};
    }
    const found = await ask(r, `${version}/images/${name}/json`);
    if (found.answer) {
        return found;
    }
    const names = (found.value.RepoTags || []).concat(found.value.RepoDigests || [], [name]);
    return {wrong: names.some((one) => listed(set, one)) ? '' : UNLISTED};
}

function serves(set, peer) {
    const named = typeof peer === 'string' && settings.PEER.test(peer);
    return named && (set.peers === null || set.peers.includes(peer));
}

function listed(set, name) {
    return set.images.includes(settings.familiar(name));
}

// Returns {value}, or {answer}: the daemon does not have it, or is gone.
async function ask(r, path) {
    const reply = await r.subrequest(`/daemon${path}`, {method: 'GET', body: ''});
    if (reply.status === 200) {
        return {value: JSON.parse(reply.responseText)};
    }
    const gone = reply.status > 500;
    return {answer: {status: gone ? 503 : reply.status, text: gone ? NO_DAEMON : reply.responseText}};
}

export default {request};
