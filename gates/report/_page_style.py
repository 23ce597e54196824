"""How a report looks: on a screen, on a phone, in the dark and on paper."""

# On a phone rows of tables become lines. Browsers then forget that they are rows, so tables name their roles.

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #5a5a63; --line: #d5d5dc; --paper: #fff; --band: #f4f4f7;
  --pass: #005a94; --fail: #a83f00; --open: #444; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9e9ee; --soft: #a8a8b3; --line: #3c3c46; --paper: #16161a;
  --band: #202027; --pass: #7cc0f0; --fail: #ff9d66; --open: #c8c8d0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9rem; }
a { color: var(--pass); }
.reached { font-size: 1.1rem; border-left: .3rem solid var(--pass); padding: .5rem .8rem; background: var(--band); }
.warning { border-left: .3rem solid var(--fail); padding: .5rem .8rem; background: var(--band); }
.soft, caption, figcaption { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .6rem 0; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; border-top: 0; overflow-wrap: break-word; }
tbody th { font-weight: 600; }
.more > * { border-top: 0; padding-top: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; overflow-wrap: normal; }
.wide { overflow-x: auto; } .wide td { white-space: nowrap; overflow-wrap: normal; }
.wide tbody th { min-width: 11rem; overflow-wrap: break-word; }
.whole, data { white-space: nowrap; overflow-wrap: normal; }
.status { white-space: nowrap; font-weight: 600; overflow-wrap: normal; }
.pass { color: var(--pass); } .fail { color: var(--fail); }
.cannot-decide { color: var(--open); } .not-run { color: var(--soft); }
dl { margin: .4rem 0; }
dl.facts { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .15rem 1rem; font-size: .9rem; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; }
dl.facts ul { margin: 0; padding-left: 1.1rem; }
dl.short { font-size: .82rem; margin: 0 0 .3rem; }
dl.short div { display: inline-block; margin-right: 1rem; }
dl.short dt, dl.short dd { display: inline; margin: 0; }
dl.short dt { color: var(--soft); } dl.short dt::after { content: "\\00a0"; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em; }
figure { margin: 1.2rem 0; }
.picture { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: .3rem; padding: .4rem; }
.picture img { display: block; width: 100%; min-width: 40rem; height: auto; }
footer { margin-top: 2.4rem; padding-top: .8rem; border-top: 1px solid var(--line); }
@media (min-width: 36rem) { .records { table-layout: fixed; } .records thead th:nth-child(1) { width: 40%; }
  .records thead th:nth-child(2), .records thead th:nth-child(3) { width: 12%; } }
@media (max-width: 36rem) { body { padding: .8rem; } dl.facts { grid-template-columns: 1fr; }
  dl.facts dd { margin-bottom: .3rem; }
  table, caption, tbody { display: block; } tr { display: flex; flex-wrap: wrap; gap: 0 .8rem; padding: .4rem 0; }
  th, td { border: 0; padding: 0; } tbody th, .more td { flex-basis: 100%; } td:empty { display: none; }
  tbody tr:not(.more) { border-top: 1px solid var(--line); } .more { padding-top: 0; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --band: #f4f4f7;
  --pass: #005a94; --fail: #a83f00; --open: #333; } body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; } h2, h3, caption, thead { break-after: avoid; } tbody, figure { break-inside: avoid; }
  .picture { overflow: visible; border: 0; } .picture img { min-width: 0; max-height: 22cm; object-fit: contain; } }
"""
"""Colours have a contrast of at least 4.5 to their ground (WCAG 2.2, level AA)."""
