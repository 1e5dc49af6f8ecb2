"""What came out of a row: judged, and printed as a table, JSON and a bar chart."""
import os, platform, statistics, subprocess, time

HEAD = f"{'':58}{'floor':>10} {'evbus':>11} {'':5}{'ratio':>6} {'spread':>13} {'target':>9}"


class Result:
    def __init__(self, row):
        self.row, self.floors, self.runs, self.why, self.failed = row, [], [], None, False

    def add(self, floor, evbus):
        if floor:
            self.floors.append(floor)
        self.runs.append(evbus)

    def value(self):
        return statistics.median(run.value for run in self.runs)

    def ratios(self):
        return [run.value / floor.value for run, floor in zip(self.runs, self.floors)]

    def floor(self):
        return statistics.median(floor.value for floor in self.floors)

    def ratio(self):
        """The median of the pairs'."""
        return statistics.median(self.ratios()) if self.floors else None

    def more(self, name):
        """Of a word, the last."""
        values = [run.more[name] for run in self.runs]
        return values[-1] if isinstance(values[-1], str) else statistics.median(values)

    def part(self):
        """How much of the target was reached, 1 is all of it; None: there is none."""
        row, parts = self.row, []
        if row.limit:
            parts.append(row.limit / self.value() if row.less else self.value() / row.limit)
        if row.target:
            parts.append(row.target / self.ratio() if row.less else self.ratio() / row.target)
        if row.also:
            name, way, bound = row.also
            parts.append(self.more(name) / bound if way == ">=" else bound / max(self.more(name), 1e-9))
        return min(parts, default=None)

    def held(self):
        """How much is there of what a change must not lose: the target or, where that is out of reach, the ratio that was reached."""
        row = self.row
        if not row.was:
            return self.part()
        return row.was / self.ratio() if row.less else self.ratio() / row.was

    def verdict(self):
        """"reached", "missed", "FELL" (below half of what it must hold), or "" where nothing is wanted."""
        if self.part() is None:
            return ""
        return "reached" if self.part() >= 1 else "missed" if self.held() >= 0.5 else "FELL"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def wanted(row):
    sign = "≤ " if row.less else "≥ "
    if row.limit:
        return sign + number(row.limit * row.scale)
    return sign + f"{row.target:g} ×" if row.target else ""


def besides(result):
    """What is told beside the figure."""
    row, words = result.row, []
    p50, p99 = (statistics.median(getattr(run, name) for run in result.runs) for name in ("p50", "p99"))
    if p50 and row.unit == "/s":
        words.append(f"p50 {p50:.0f} p99 {p99:.0f} µs")
    elif p99:
        words.append(f"p99 {p99:.0f} µs")
    for name in result.runs[-1].more:
        value = result.more(name)
        words.append(f"{name} {value if isinstance(value, str) else number(value)}")
    if row.also:
        words[-1] += f" ({'≥' if row.also[1] == '>=' else '≤'} {row.also[2]:g})"
    if row.was:
        words.append(f"of {row.was:g} ×")
    return ", ".join(words)


def spread(result):
    values = result.ratios() or [run.value * result.row.scale for run in result.runs]
    return f"{number(min(values))}-{number(max(values))}" if len(values) > 1 else ""


def tell(result):
    row = result.row
    head = f"{row.mark:5}{row.name:53}"
    if result.why:
        print(f"{head}{'FAILED' if result.failed else 'not run'}: {result.why}", flush=True)
        return
    floor = number(result.floor() * row.scale) if result.floors else ""
    ratio = f"{result.ratio():.2f}" if result.floors else ""
    line = f"{head}{floor:>10} {number(result.value() * row.scale):>11} {row.unit:5}{ratio:>6} {spread(result):>13} " \
           f"{wanted(row):>9} {result.verdict():8}{besides(result)}"
    print(line.rstrip(), flush=True)


def tell_quick(result):
    row = result.row
    how = f"{'FAILED' if result.failed else 'not run'}: {result.why}" if result.why else "ran"
    print(f"{row.mark:5}{row.name:53}{how}", flush=True)


def as_json(results, facts):
    rows = []
    for r in results:
        row = {"mark": r.row.mark, "name": r.row.name, "unit": r.row.unit, "less_is_better": r.row.less,
               "target_ratio": r.row.target, "reached_ratio": r.row.was, "limit": r.row.limit, "scale": r.row.scale, "not_run": r.why}
        if not r.why:
            row |= {"floor": [floor.value for floor in r.floors], "evbus": [run.value for run in r.runs], "p50_us": [run.p50 for run in r.runs],
                    "p99_us": [run.p99 for run in r.runs], "more": [run.more for run in r.runs], "ratio": r.ratio(),
                    "verdict": r.verdict()}
        rows.append(row)
    return {**facts, "rows": rows}


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def as_svg(results, facts):
    """A bar for each row that has a target: how much of it was reached, with a line at all of it."""
    shown = [r for r in results if not r.why and r.part() is not None]
    height, left, unit, most = 22, 400, 160, 3.2
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + 4 * unit}" height="{height * (len(shown) + 2)}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="100%" height="100%" fill="#fff"/><text x="8" y="15">{escape(facts["commit"])}, '
           f'{escape(facts["date"])}: part of the target that was reached</text>']
    for i, r in enumerate(shown):
        y, part = height * (i + 1) + 8, r.part()
        width = min(part, most) * unit
        color = {"reached": "#3a7", "missed": "#da3", "FELL": "#c44"}[r.verdict()]
        out.append(f'<text x="8" y="{y + 12}">{escape(r.row.mark)} {escape(r.row.name)}</text>'
                   f'<rect x="{left}" y="{y}" width="{width:.0f}" height="16" fill="{color}"/>'
                   f'<text x="{left + width + 6:.0f}" y="{y + 12}">{part:.2f}</text>')
    out.append(f'<line x1="{left + unit}" x2="{left + unit}" y1="{height}" y2="{height * (len(shown) + 1) + 8}" '
               'stroke="#000"/></svg>')
    return "\n".join(out) + "\n"


def facts_of(directory, rounds):
    def ask(*argv):
        try:
            here = os.path.dirname(os.path.abspath(__file__))
            return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=here).stdout.decode().strip()
        except OSError:
            return ""
    with open("/proc/cpuinfo") as lines:
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"date": time.strftime("%Y-%m-%d"), "commit": ask("git", "describe", "--always", "--dirty") or "unknown",
            "machine": f"{os.cpu_count()} x {processor}, Linux {platform.release()}",
            "file_system": ask("stat", "-f", "-c", "%T", directory), "load": round(os.getloadavg()[0], 2), "rounds": rounds}
