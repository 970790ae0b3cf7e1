// Formats numbers and sentences the same way across the page.

const LOCALE = "en";

/** 0.8433 as "84.3 %". */
export function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}

/** Milliseconds to about three digits: "0", "0.42", "6.3", "128". */
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

/** Turns a reason such as `no adapter was found` into a sentence. */
export function sentence(text) {
  const trimmed = text.trim();
  if (!trimmed) return "";
  const capital = trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
