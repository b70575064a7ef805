// The mel spectrogram of a sound, drawn column by column while it grows: Hann window of 64 ms,
// Slaney's mel scale, -80 to 0 dB re full scale, as in reports.
const WINDOW_S = 0.064, BANDS = 96, LOW_DB = -80, HIGH_DB = 0;
const MAGMA = (
  "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 " +
  "d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf"
).split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const bands = new Map(); // by sample rate

export class Picture {
  #column = 0;
  #scale;

  /** `scale` is the seconds from one edge of the canvas to the other. */
  constructor(canvas, sound, scale) {
    Object.assign(this, { canvas, sound });
    this.#scale = scale;
    this.drawing = canvas.getContext("2d");
  }

  set scale(seconds) {
    if (seconds === this.#scale) return;
    this.#scale = seconds;
    this.#column = 0;
    this.drawing.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  set width(pixels) {
    if (pixels === this.canvas.width) return;
    this.canvas.width = pixels; // which clears it
    this.#column = 0;
  }

  /** Draw the columns whose sound is there. */
  draw() {
    const { sound, canvas } = this;
    if (!sound.sampleRate) return;
    if (!bands.has(sound.sampleRate)) bands.set(sound.sampleRate, melBands(sound.sampleRate));
    const of = bands.get(sound.sampleRate);
    for (; this.#column < canvas.width; this.#column++) {
      const centre = Math.round(((this.#column + 0.5) / canvas.width) * this.#scale * sound.sampleRate);
      const end = sound.duration * sound.sampleRate;
      if (centre > end || (!sound.complete && centre + of.size / 2 > end)) return;
      this.#drawColumn(this.#column, of, centre - of.size / 2);
    }
  }

  #drawColumn(x, { size, edges, window, power }, from) {
    const real = new Float32Array(size), imaginary = new Float32Array(size);
    this.sound.mono(from, from + size, real);
    for (let i = 0; i < size; i++) real[i] *= window[i];
    transform(real, imaginary);
    const levels = new Float32Array(BANDS);
    for (let band = 0; band < BANDS; band++) {
      const [low, middle, high] = edges.slice(band, band + 3);
      let sum = 0;
      for (let bin = Math.ceil(low); bin < high; bin++) {
        const weight = bin < middle ? (bin - low) / (middle - low) : (high - bin) / (high - middle);
        sum += weight * (real[bin] ** 2 + imaginary[bin] ** 2) * power;
      }
      levels[band] = 10 * Math.log10(sum + 1e-12);
    }
    const { height } = this.canvas, column = this.drawing.createImageData(1, height);
    for (let y = 0; y < height; y++) {
      const level = levels[Math.floor(((height - 1 - y) / height) * BANDS)];
      const share = Math.max(0, Math.min(1, (level - LOW_DB) / (HIGH_DB - LOW_DB)));
      const place = share * (MAGMA.length - 1), stop = Math.min(Math.floor(place), MAGMA.length - 2);
      for (let part = 0; part < 3; part++)
        column.data[4 * y + part] =
          MAGMA[stop][part] + (place - stop) * (MAGMA[stop + 1][part] - MAGMA[stop][part]);
      column.data[4 * y + 3] = 255;
    }
    this.drawing.putImageData(column, x, 0);
  }
}

/** The window, the edges of the mel bands in bins, and the factor that makes power of a bin. */
function melBands(sampleRate) {
  const size = 2 ** Math.round(Math.log2(WINDOW_S * sampleRate));
  const window = Float32Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
  const top = toMel(sampleRate / 2);
  const edges = Array.from(
    { length: BANDS + 2 }, (_, i) => (toHz((top * i) / (BANDS + 1)) * size) / sampleRate,
  );
  const energy = window.reduce((sum, value) => sum + value * value, 0);
  return { size, window, edges, power: 2 / (size * energy) };
}

const LINEAR_HZ = 1000, LOG_STEP = Math.log(6.4) / 27;
const toMel = (hz) => (hz < LINEAR_HZ ? (3 * hz) / 200 : 15 + Math.log(hz / LINEAR_HZ) / LOG_STEP);
const toHz = (mel) => (mel < 15 ? (200 * mel) / 3 : LINEAR_HZ * Math.exp(LOG_STEP * (mel - 15)));

/** The discrete Fourier transform in place, radix 2 (Cooley and Tukey 1965). */
function transform(real, imaginary) {
  const size = real.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]]; // imaginary is zero
  }
  for (let length = 2; length <= size; length <<= 1) {
    const angle = (-2 * Math.PI) / length;
    for (let half = 0; half < length / 2; half++) {
      const cos = Math.cos(angle * half), sin = Math.sin(angle * half);
      for (let i = half; i < size; i += length) {
        const j = i + length / 2;
        const re = real[j] * cos - imaginary[j] * sin, im = real[j] * sin + imaginary[j] * cos;
        real[j] = real[i] - re;
        imaginary[j] = imaginary[i] - im;
        real[i] += re;
        imaginary[i] += im;
      }
    }
  }
}
