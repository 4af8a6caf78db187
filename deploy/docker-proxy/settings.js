// The operator's settings: which images are sandboxes' images, and whose sandboxes may be reached. The images
// come by the agent's own two variables, in the same forms, so that one file can give them to both.

// As python/chorus/config/groups/sandbox.py has them.
const IMAGES = ['base', 'python-dev', 'node-dev', 'rust-dev', 'go-dev', 'java-dev', 'cpp-dev']
    .map((name) => `anthonyrawlins/chorus-${name}:latest`);
const PEER = /^[A-Za-z0-9_-]{1,128}$/;

// Returns {images, peers, wrong}: names in the daemon's own form, peers or null for all, and what is wrong
// with a setting, '' for nothing.
function read() {
    const images = table(process.env.CHORUS_SANDBOX_IMAGES || '');
    if (images === null) {
        return {wrong: 'CHORUS_SANDBOX_IMAGES of the proxy must be a JSON object from language to image'};
    }
    const peers = items(process.env.CHORUS_PROXY_PEERS || '');
    if (!peers.every((peer) => PEER.test(peer))) {
        return {wrong: 'CHORUS_PROXY_PEERS of the proxy must be comma-separated peer ids'};
    }
    return {
        images: images.concat(items(process.env.CHORUS_SANDBOX_ALLOW || '')).map(familiar),
        peers: peers.length ? peers : null,
        wrong: '',
    };
}

function table(text) {
    if (!text.trim()) {
        return IMAGES;
    }
    try {
        const value = JSON.parse(text);
        const names = Object.keys(value).map((language) => value[language]);
        const good = !Array.isArray(value) && names.every((name) => typeof name === 'string' && name);
        return good ? names : null;
    } catch (error) {
        return null;
    }
}

function items(text) {
    return text.split(',').map((item) => item.trim()).filter((item) => item);
}

// The form in which the daemon lists an image: without its own registry, with a tag.
function familiar(name) {
    const short = name.replace(/^(index\.)?docker\.io\//, '').replace(/^library\//, '');
    return /@|:[^/]*$/.test(short) ? short : `${short}:latest`;
}

export default {read, familiar, PEER};
