// One terminal of the page. What is said over the WebSocket, and why there are windows in both directions, is in
// src/atoll/doors/web/terminal/wire.py. Everything here may be lost at any time: the terminal lives on the server.

const place = document.getElementById('terminal');
const status = document.getElementById('terminal-status');
const again = document.getElementById('terminal-again');

const ACK_EVERY = 32 * 1024; // bytes; the server waits at 384 KiB
const TYPED = 192 * 1024; // bytes typed ahead; the server refuses 256 KiB
const FRAME = 32 * 1024;
const OVER = 4000, AGAIN = 4001, SIGNED_OUT = 4003, GONE = 4004, WRONG = 4008;

// xterm.js makes style elements and, for 24-bit colours, sets style attributes. Our policy allows the first with
// this page's nonce, and nobody the second; the same through the object model is always allowed.
const make = document.createElement.bind(document);
document.createElement = (name, options) => {
  const element = make(name, options);
  if (name === 'style') element.nonce = place.dataset.nonce;
  return element;
};
const set = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === 'style') this.style.cssText = value;
  else set.call(this, name, value);
};

const [{Terminal}, {FitAddon}] = await Promise.all([import(place.dataset.xterm), import(place.dataset.fit)]);

const dark = matchMedia('(prefers-color-scheme: dark)');
const LIGHT_THEME = {
  background: '#fdfdfb', foreground: '#1b2026', cursor: '#1b2026', cursorAccent: '#fdfdfb', selectionBackground: '#b5d3f5',
  black: '#1b2026', red: '#b3261e', green: '#1f7a34', yellow: '#8a5a00', blue: '#1a56b0', magenta: '#8b2f97', cyan: '#0f6f7c',
  white: '#6a6f76', brightBlack: '#5b6168', brightRed: '#c4362d', brightGreen: '#23843a', brightYellow: '#946200',
  brightBlue: '#2563c4', brightMagenta: '#9a3aa7', brightCyan: '#137a88', brightWhite: '#3a4047',
};
const DARK_THEME = {
  background: '#14161a', foreground: '#e3e5e8', cursor: '#e3e5e8', cursorAccent: '#14161a', selectionBackground: '#2f4d73',
};
const theme = () => (dark.matches ? DARK_THEME : LIGHT_THEME);
const stored = Number(localStorage.getItem('terminal-font'));
const term = new Terminal({
  fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
  fontSize: stored >= 6 && stored <= 40 ? stored : matchMedia('(max-width: 40em)').matches ? 12 : 14,
  theme: theme(),
  lineHeight: 1.15, // at 1.0 rows cut the underscores of some fonts off
  scrollback: 5000,
  cursorBlink: false,
  minimumContrastRatio: 4.5,
});
const fit = new FitAddon();
term.loadAddon(fit);
term.open(place);
place.terminal = term; // for whoever looks at the page: tests, and the browser's console
dark.addEventListener('change', () => { term.options.theme = theme(); });
term.onTitleChange(title => { document.title = `${title || place.dataset.title} · Atoll`; });

// --- the connection

const encoder = new TextEncoder();
let socket = null;
let have = null; // offset up to which we were sent everything; it may still wait for the parser
let shown = 0; // offset up to which the screen shows everything
let acked = 0;
let live = 0; // what is before this was answered by whoever saw it first
let attempts = 0;
let timer = 0;
let isOver = false;
let typed = []; // chunks that wait to be sent
let owed = 0; // typed bytes that were sent and not taken

const say = (what, value) => {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({[what]: value}));
};
const size = () => [term.cols, term.rows];

function connect() {
  clearTimeout(timer);
  if (isOver || (socket && socket.readyState <= WebSocket.OPEN)) return;
  const one = new WebSocket(`wss://${location.host}/terminal/${place.dataset.id}/socket`);
  one.binaryType = 'arraybuffer';
  one.onopen = () => {
    attempts = 0;
    owed = 0; // what was under way may have come or not; it is not sent twice
    one.send(JSON.stringify({hello: {have, size: size()}}));
    status.textContent = '';
    flush();
  };
  one.onmessage = event => (typeof event.data === 'string' ? told(JSON.parse(event.data)) : output(event.data));
  one.onclose = event => { if (one === socket) closed(event); };
  socket = one;
}

function told(message) {
  if (message.from) {
    have = acked = message.from.offset;
    live = message.from.live;
    // Written, not called: what came before may still wait for the parser.
    if (message.from.reset) term.write('\x1bc' + message.from.modes, () => { shown = message.from.offset; });
  } else if (message.taken) {
    owed = Math.max(0, owed - message.taken);
    flush();
  } else if (message.size) {
    resizeTo(...message.size);
  } else if (message.over) {
    status.textContent = message.over;
  }
}

function output(buffer) {
  const bytes = new Uint8Array(buffer);
  const old = Math.min(bytes.length, Math.max(0, live - have));
  if (old) show(bytes.subarray(0, old));
  if (old < bytes.length) show(bytes.subarray(old));
}

function show(bytes) {
  have += bytes.length;
  const end = have;
  term.write(bytes, () => {
    shown = end;
    // Not for each chunk, but always for the last one.
    if (shown - acked >= ACK_EVERY || shown === have) {
      acked = Math.max(acked, shown);
      say('ack', acked);
    }
  });
}

function closed(event) {
  if (event.code === OVER || event.code === GONE) {
    end(event.code === GONE ? event.reason : status.textContent);
  } else if (event.code === SIGNED_OUT || event.code === WRONG) {
    end(event.reason || 'Load the page again.');
  } else if (event.code === AGAIN && document.hidden) {
    status.textContent = 'Waiting until this page is looked at.';
  } else {
    const wait = Math.min(10000, 500 * 2 ** attempts++) * (0.75 + Math.random() / 2);
    status.textContent = `Connection lost; trying again${attempts > 1 ? ` (${attempts})` : ''} …`;
    timer = setTimeout(connect, wait);
  }
}

function end(text) {
  isOver = true;
  status.textContent = text;
  again.hidden = false;
  term.options.disableStdin = true;
}

addEventListener('online', connect);
document.addEventListener('visibilitychange', () => { if (!document.hidden) connect(); });
addEventListener('pageshow', connect);

// --- what is typed

function type(data) {
  if (isOver) return;
  for (let at = 0; at < data.length; at += FRAME) typed.push(data.subarray(at, at + FRAME));
  flush();
}

function flush() {
  while (typed.length && socket?.readyState === WebSocket.OPEN && owed + typed[0].length <= TYPED) {
    const chunk = typed.shift();
    owed += chunk.length;
    socket.send(chunk);
  }
}

term.onData(text => type(encoder.encode(controlled(text))));
term.onBinary(text => type(Uint8Array.from(text, letter => letter.charCodeAt(0))));

// Old output that is shown again holds questions of programs: where is the cursor, what are you, which colours?
// The terminal would answer each, and an answer that nobody waits for is typed into the shell.
const isOld = () => shown < live;
for (const id of [
  {final: 'c'}, {prefix: '>', final: 'c'}, {prefix: '=', final: 'c'}, {prefix: '>', final: 'q'},
  {final: 'n'}, {prefix: '?', final: 'n'}, {final: 't'},
  {intermediates: '$', final: 'p'}, {prefix: '?', intermediates: '$', final: 'p'},
]) term.parser.registerCsiHandler(id, isOld);
term.parser.registerDcsHandler({intermediates: '$', final: 'q'}, isOld);
for (const id of [4, 10, 11, 12]) term.parser.registerOscHandler(id, data => isOld() && data.includes('?'));

// --- size

let fitted = '';
function resizeTo(columns, rows) {
  if (columns !== term.cols || rows !== term.rows) term.resize(columns, rows);
}
function refit() {
  const room = fit.proposeDimensions();
  if (!room || !(room.cols > 1 && room.rows > 1)) return;
  resizeTo(Math.min(room.cols, 1000), Math.min(room.rows, 1000));
  if (fitted !== `${size()}`) say('size', size());
  fitted = `${size()}`;
}
new ResizeObserver(refit).observe(place);
// Another page may have set its size meanwhile; the one that is used decides.
addEventListener('focus', () => { fitted = ''; refit(); });

// --- keys of the page, for phones and for those who cannot press two at once

const KEYS = {escape: '\x1b', tab: '\t'};
const ARROWS = {left: 'D', up: 'A', down: 'B', right: 'C'};
const control = document.querySelector('[data-key=control]');

function controlled(text) {
  if (control.getAttribute('aria-pressed') !== 'true' || text.length !== 1) return text;
  control.setAttribute('aria-pressed', 'false');
  return /[@-_a-z]/.test(text) ? String.fromCharCode(text.toUpperCase().charCodeAt(0) & 31) : text;
}

function letters(change) {
  term.options.fontSize = Math.min(40, Math.max(6, term.options.fontSize + change));
  localStorage.setItem('terminal-font', term.options.fontSize);
  refit();
}

async function press(key) {
  if (key === 'control') control.setAttribute('aria-pressed', control.getAttribute('aria-pressed') !== 'true');
  else if (key === 'smaller') letters(-1);
  else if (key === 'larger') letters(1);
  else if (key === 'paste') term.paste(await navigator.clipboard.readText());
  else if (key in ARROWS) term.input((term.modes.applicationCursorKeysMode ? '\x1bO' : '\x1b[') + ARROWS[key]);
  else term.input(KEYS[key]);
}

document.querySelector('.terminal-keys').addEventListener('click', event => {
  const key = event.target.closest('[data-key]')?.dataset.key;
  if (!key) return;
  press(key).catch(error => { status.textContent = `That did not work: ${error.message}`; });
  if (event.detail) term.focus(); // pressed with a finger or a mouse; from the keyboard the focus stays
});

term.attachCustomKeyEventHandler(event => {
  if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return true;
  if (event.code === 'KeyL') {
    if (event.type === 'keydown') document.querySelector('.terminal-keys button').focus();
    event.preventDefault();
    return false;
  }
  if (event.code === 'KeyC') {
    if (event.type === 'keydown' && term.hasSelection()) navigator.clipboard.writeText(term.getSelection());
    event.preventDefault();
    return false;
  }
  return event.code !== 'KeyV'; // the browser pastes
});

refit();
connect();
term.focus();
