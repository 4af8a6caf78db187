// What the bodies of an agent's calls may say. A shape is a function from a value to what is wrong with it:
// '' for nothing, else words that begin with the setting's name. Values are never repeated: they may hold
// secrets.

import settings from 'settings.js';

// SHA-256 of the one seccomp profile that sandboxes have; tests/unit/executor/test_proxy_list.py computes it.
const SECCOMP_SHA256 = 'c0be7dc17fbba511bb246ee203ab2543399c6e18533efc112bbe81bf473113f9';

const AMBIGUOUS = 'a body that two parsers may read differently';
const BAD_VALUE = ' has a value that is not allowed';
// Longer or stranger names of settings are not repeated either.
const SHOWN = /^[A-Za-z0-9_./-]{1,64}$/;

function exactly(wanted) {
    return (value) => (equal(value, wanted) ? '' : BAD_VALUE);
}

function equal(one, other) {
    if (one === null || other === null || typeof one !== 'object' || typeof other !== 'object') {
        return one === other;
    }
    const names = Object.keys(one);
    return Array.isArray(one) === Array.isArray(other) && names.length === Object.keys(other).length &&
        names.every((name) => has(other, name) && equal(one[name], other[name]));
}

function matching(pattern) {
    return (value) => (typeof value === 'string' && pattern.test(value) ? '' : BAD_VALUE);
}

function text(value) {
    return typeof value === 'string' ? '' : BAD_VALUE;
}

function texts(value) {
    return Array.isArray(value) && value.every((one) => typeof one === 'string') ? '' : BAD_VALUE;
}

// Never 0 or negative, which mean "without limit".
function amount(value) {
    return Number.isSafeInteger(value) && value > 0 ? '' : BAD_VALUE;
}

function isObject(value) {
    return value !== null && typeof value === 'object' && !Array.isArray(value);
}

// Not what every object has of its kind, such as `constructor`.
function has(value, name) {
    return Object.prototype.hasOwnProperty.call(value, name);
}

// An object that has all of these settings, and no other.
function object(shapes) {
    return (value) => {
        if (!isObject(value)) {
            return BAD_VALUE;
        }
        const foreign = Object.keys(value).filter((name) => !has(shapes, name))[0];
        if (foreign !== undefined) {
            return `.${SHOWN.test(foreign) ? foreign : '(a name that is not shown)'} may not be set`;
        }
        for (let name in shapes) {
            if (!has(value, name)) {
                return `.${name} must be set`;
            }
            const wrong = shapes[name](value[name]);
            if (wrong) {
                return `.${name}${wrong}`;
            }
        }
        return '';
    };
}

const LIMITS = {CpuPeriod: amount, CpuQuota: amount, Memory: amount, MemorySwap: amount, PidsLimit: amount};

function systemCalls(value) {
    const good = Array.isArray(value) && value.length === 2 && value[0] === 'no-new-privileges' &&
        typeof value[1] === 'string' && value[1].startsWith('seccomp=') &&
        require('crypto').createHash('sha256').update(value[1].slice(8)).digest('hex') === SECCOMP_SHA256;
    return good ? '' : BAD_VALUE;
}

function sysctls(value) {
    return equal(value, {}) || equal(value, {'net.ipv6.conf.all.disable_ipv6': '0'}) ? '' : BAD_VALUE;
}

// A temporary file system; a size of 0 would be none.
function folder(mode) {
    return matching(new RegExp(`^rw,exec,nosuid,nodev,size=[1-9][0-9]*,nr_inodes=[1-9][0-9]*,mode=${mode}$`));
}

const host = object(Object.assign({
    NetworkMode: exactly('none'),
    ExtraHosts: exactly(['sandbox:127.0.0.1']),
    Dns: exactly(['127.0.0.1']),
    DnsSearch: exactly(['.']),
    Sysctls: sysctls,
    ReadonlyRootfs: exactly(true),
    Tmpfs: object({
        '/workspace': folder('0755,uid=1000,gid=1000'),
        '/tmp': folder('1777'),
    }),
    CapDrop: exactly(['ALL']),
    SecurityOpt: systemCalls,
    Privileged: exactly(false),
    Init: exactly(false),
    IpcMode: exactly('private'),
    ShmSize: amount,
    Ulimits: exactly([{Name: 'core', Soft: 0, Hard: 0}, {Name: 'nofile', Soft: 4096, Hard: 4096}]),
    LogConfig: exactly({Type: 'none', Config: {}}),
    RestartPolicy: exactly({Name: 'no'}),
}, LIMITS));

const container = object({
    Image: text,
    Entrypoint: texts,
    Cmd: texts,
    User: exactly('1000:1000'),
    WorkingDir: exactly('/workspace'),
    Env: texts,
    Labels: object({'chorus.peer': matching(settings.PEER), 'chorus.boot': text, 'chorus.task': text}),
    AttachStdin: exactly(false),
    AttachStdout: exactly(false),
    AttachStderr: exactly(false),
    OpenStdin: exactly(false),
    Tty: exactly(false),
    Hostname: exactly('sandbox'),
    Healthcheck: exactly({Test: ['NONE']}),
    HostConfig: host,
});

const session = object({
    Container: matching(/^[0-9a-f]{64}$/),
    User: exactly('1000:1000'),
    Privileged: exactly(false),
    Tty: exactly(false),
    AttachStdin: exactly(true),
    AttachStdout: exactly(true),
    AttachStderr: exactly(true),
    Cmd: texts,
});

const start = object({Tty: exactly(false), Detach: exactly(false)});

// Reads a body that every parser reads alike: returns {value} or {wrong}.
function read(body) {
    if (!/^[\t\n\r\x20-\x7e]*$/.test(body)) {
        return {wrong: 'a body that is not plain ASCII'};
    }
    let value;
    try {
        value = JSON.parse(body);
    } catch (error) {
        return {wrong: 'a body that is not one JSON document'};
    }
    let names = 0;
    let usual = true;
    const others = body.replace(/("(?:[^"\\]|\\.)*")(\s*:)?/g, (whole, string, colon) => {
        names += colon ? 1 : 0;
        usual = usual && JSON.stringify(JSON.parse(string)) === string;
        return ' ';
    });
    const rest = others.match(/[^\s{}[\],]+/g) || [];
    usual = usual && rest.every((one) => JSON.stringify(JSON.parse(one)) === one);
    if (names !== count(value)) {
        return {wrong: `${AMBIGUOUS}: a name stands in it twice`};
    }
    return usual ? {value} : {wrong: `${AMBIGUOUS}: an unusual escape or number`};
}

// How many names a value has, at all depths.
function count(value) {
    if (value === null || typeof value !== 'object') {
        return 0;
    }
    const inner = Object.keys(value).map((name) => count(value[name]));
    return inner.reduce((sum, one) => sum + one, Array.isArray(value) ? 0 : inner.length);
}

export default {container, session, start, limits: object(LIMITS), read};
