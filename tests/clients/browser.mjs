// A page in headless Chromium, driven over its debugging pipe: node browser.mjs URL PROFILE_FOLDER
//
// Each line on standard input is a command, and is answered by one line of JSON on standard output:
//   picture       what the console's screen shows: a PNG in base64, or null if there is no screen yet
//   press CODE KEY_NUMBER
//                 presses and lets go of a key, named as KeyboardEvent.code and .keyCode have it
//   said          what the page's scripts said and threw, as a list of texts
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const [url, profile] = process.argv.slice(2);
const flags = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--no-proxy-server', '--ignore-certificate-errors', '--window-size=1300,1100',
  `--user-data-dir=${profile}`, '--remote-debugging-pipe', 'about:blank',
];
const chromium = spawn('chromium', flags, { stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe'] });
const [, , , toChromium, fromChromium] = chromium.stdio;
process.on('exit', () => chromium.kill());
process.on('SIGTERM', () => process.exit(1));
chromium.on('exit', () => process.exit(1));

const waiting = new Map();
const said = [];
let unread = '';
let last = 0;

fromChromium.setEncoding('utf8').on('data', (text) => {
  const messages = (unread + text).split('\0');
  unread = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    if (message.id) {
      waiting.get(message.id)?.(message);
      waiting.delete(message.id);
    } else if (message.method === 'Runtime.consoleAPICalled') {
      said.push(message.params.args.map((part) => part.value ?? part.description).join(' '));
    } else if (message.method === 'Runtime.exceptionThrown') {
      const { exception, text } = message.params.exceptionDetails;
      said.push(`threw: ${exception?.description ?? text}`);
    }
  }
});

const ask = (method, params = {}, sessionId = undefined) =>
  new Promise((resolve, reject) => {
    last += 1;
    waiting.set(last, ({ result, error }) => (error ? reject(new Error(error.message)) : resolve(result)));
    toChromium.write(`${JSON.stringify({ id: last, method, params, sessionId })}\0`);
  });

const { targetId } = await ask('Target.createTarget', { url: 'about:blank' });
const { sessionId } = await ask('Target.attachToTarget', { targetId, flatten: true });
const page = (method, params) => ask(method, params, sessionId);
await page('Runtime.enable');
await page('Page.enable');
await page('Page.navigate', { url });

// The console makes a canvas for each surface; the screen is the first.
const SCREEN = `(() => {
  const canvas = document.querySelector('#spice-screen canvas[id^="spice_surface"]')
    ?? document.querySelector('#spice-screen canvas');
  return canvas && canvas.toDataURL('image/png').split(',')[1];
})()`;

const commands = {
  async picture() {
    const { result } = await page('Runtime.evaluate', { expression: SCREEN, returnByValue: true });
    return result.value ?? null;
  },
  async press(code, number) {
    for (const type of ['rawKeyDown', 'keyUp']) {
      await page('Input.dispatchKeyEvent', { type, code, windowsVirtualKeyCode: Number(number) });
    }
    return true;
  },
  said: async () => said,
};

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(' ');
  console.log(JSON.stringify(await commands[command](...words)));
}
process.exit(0);
