// Sorts and filters tables in place and shows the current tab; without it every page is complete and readable.
"use strict";

(function () {
  const cellValue = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null;
    if (cell.dataset.value !== undefined) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    const text = cell.textContent.trim();
    const number = Number(text.replace(/[\s,]/g, ""));
    return text !== "" && Number.isFinite(number) ? number : text.toLowerCase();
  };

  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };

  const sortBody = (body, column, direction) => {
    const rows = Array.from(body.rows).filter((row) => !row.classList.contains("divider"));
    const keyed = rows.map((row, place) => ({ row, place, value: cellValue(row, column) }));
    keyed.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.place - b.place;
      return direction * compare(a.value, b.value) || a.place - b.place;
    });
    keyed.forEach(({ row }) => body.appendChild(row));
  };

  const makeSortable = (table) => {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      if (head.classList.contains("nosort")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const current = head.getAttribute("aria-sort");
        const first = head.classList.contains("num") && column > 0 ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = current === first ? other : first;
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        Array.from(table.tBodies).forEach((body) => sortBody(body, column, order === "ascending" ? 1 : -1));
      });
    });
  };

  const makeFilter = (table) => {
    const box = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const found = document.createElement("span");
    box.className = "filter";
    input.type = "search";
    found.setAttribute("role", "status");
    label.append(table.dataset.filter + " ", input);
    box.append(label, found);
    table.closest(".scroll").before(box);
    const rows = Array.from(table.tBodies).flatMap((body) => Array.from(body.rows));
    const entries = rows.filter((row) => !row.classList.contains("divider") && !row.classList.contains("empty"));
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      entries.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      });
      found.textContent = words.length ? shown + " of " + entries.length + " rows" : "";
    });
  };

  const showCurrent = (nav) => {
    const [tab, frame] = [nav.querySelector("[aria-current]"), nav.getBoundingClientRect()];
    if (!tab) return;
    const place = tab.getBoundingClientRect();
    nav.scrollLeft += place.left - frame.left - (frame.width - place.width) / 2;
  };

  document.querySelectorAll("nav.tabs").forEach(showCurrent);
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("table[data-filter]").forEach((table) => {
    if (table.tBodies[0].rows.length > 3) makeFilter(table);
  });
})();
