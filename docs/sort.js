/* A click on a column's head, or Enter, sorts a table by it; another click turns the order. */

/* 2.49 of "2.49 [2.29, 2.69] (1)", 2000 of "2,000"; NaN of what is no number. */
function value(text) {
  return parseFloat(text.replace("−", "-").replace(/,(?=\d{3}\b)/g, ""));
}

/* The rows' numbers in the order of a column's texts; cells that say nothing are last. */
function order(texts, descending) {
  const said = texts.map((text) => !["", "–"].includes(text.trim()));
  const numbers = texts.every((text, row) => !said[row] || !Number.isNaN(value(text)));
  const compared = (a, b) =>
    numbers ? value(texts[a]) - value(texts[b]) : texts[a].localeCompare(texts[b]);
  return [...texts.keys()].sort(
    (a, b) => said[b] - said[a] || (said[a] ? (descending ? -1 : 1) * compared(a, b) : 0)
  );
}

function sort(head) {
  const descending = head.ariaSort === "ascending";
  head.parentNode.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = head.closest("table").tBodies[0];
  const rows = [...body.rows];
  const texts = rows.map((row) => row.cells[head.cellIndex].textContent);
  body.append(...order(texts, descending).map((row) => rows[row]));
}

document.querySelectorAll(".md-typeset table:not([class]) thead th").forEach((head) => {
  head.tabIndex = 0;
  head.addEventListener("click", () => sort(head));
  head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head));
});
