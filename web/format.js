// Numbers as text, one way for the whole page.

const LOCALE = "en";

/** 0.8433 as "84.3 %". */
export function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}

/** Milliseconds to three digits or so: "0", "0.42", "6.3", "128". */
export function milliseconds(ms) {
  if (ms === 0) return "0";
  return ms.toFixed(ms < 1 ? 2 : ms < 100 ? 1 : 0);
}

export function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

export function count(n) {
  return n.toLocaleString(LOCALE);
}

/** A reason such as `no adapter was found` as a sentence of its own. */
export function sentence(text) {
  const trimmed = text.trim();
  if (!trimmed) return "";
  const capital = trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
