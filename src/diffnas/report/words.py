"""What the page says in words: the verdict and what it does not know, from the numbers alone."""

from collections.abc import Iterable, Mapping
from typing import Any

from diffnas.report.table import mean, measure_text, ratio_text

Json = Mapping[str, Any]


def verdict(name: str, architecture: Json, metrics: Json) -> str:
    """One sentence: what the student costs and how its quality compares."""
    costs = _costs(architecture, metrics)
    if not costs:
        return f"{name} has no architecture yet."
    teacher, student = metrics.get("teacher", {}), metrics.get("student", {})
    mine, theirs = student.get("frechet_distance"), teacher.get("frechet_distance")
    if mean(mine) is None or not mean(theirs):
        return f"{name} needs {costs}; its quality is not measured yet."
    texts = [measure_text("frechet_distance", side) for side in (mine, theirs)]
    return (
        f"{name} needs {costs}; its Fréchet distance to held-out images is {texts[0]} "
        f"against the teacher's {texts[1]} ({ratio_text(mine, theirs)} times)."
    )


def protocol_line(protocol: Json) -> str:
    """How it was measured, as one line: ``sampler dpmsolver, steps 20, ...``."""
    return ", ".join(
        f"{key.replace('_', ' ')} {words(value)}" for key, value in protocol.items() if value != ""
    )


def measured_apart(students: Iterable[Json]) -> str:
    """That students' figures do not compare, by their metrics, and why; nothing if they do."""
    protocols = [each["protocol"] for each in students if each.get("protocol")]
    told = {key: {words(each.get(key)) for each in protocols} for each in protocols for key in each}
    others = [key.replace("_", " ") for key, values in told.items() if len(values) > 1]
    if not others:
        return ""
    return (
        f"These students were not measured in the same way (different: {', '.join(others)}): "
        "each compares with the teacher's figures beside it, not with another student's."
    )


def words(value: Any) -> str:
    """A value of a JSON file for a person."""
    if isinstance(value, list | tuple):
        return " ".join(words(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    return "none" if value is None else str(value)


def unmeasured(metrics: Json) -> list[str]:
    """What these numbers leave open."""
    protocol, student = metrics.get("protocol", {}), metrics.get("student", {})
    seeds = protocol.get("seeds", ())
    lines = [
        "One training run: another training seed may give a somewhat better or worse student.",
        "The teacher was not trained further. A teacher given the student's retraining steps may "
        "be better than the teacher measured here.",
    ]
    if isinstance(seeds, list | tuple) and len(seeds) < 3:
        lines.append(
            f"Sampling noise: {len(seeds)} sampling seed{'' if len(seeds) == 1 else 's'} "
            f"cannot tell a small difference from chance (setting evaluate.seeds)."
        )
    samples = protocol.get("samples")
    if isinstance(samples, int) and samples < 10_000:
        lines.append(
            f"Distances from {samples} samples are biased upwards; compare them only with "
            f"distances from as many samples and the same features ({protocol.get('features')})."
        )
    if mean(student.get("latency_ms")) is None:
        lines.append("Latency: fewer MACs are not always proportionally less time.")
    if mean(student.get("memory_bytes")) is None:
        lines.append("Memory of a call.")
    lines.append("Whether people see a difference: look at the samples.")
    return lines


def trial(made: Json) -> str:
    """That a student's retraining, of this student.json, was a trial; nothing if it was not."""
    steps, whole = made.get("settings", {}).get("retrain", {}).get("steps"), made.get("whole_steps")
    if whole in (steps, None):
        return ""
    return (
        f"A trial: max_steps cut its retraining short after {steps} of {whole} steps. Its quality "
        "says nothing of what a whole retraining would give."
    )


def _costs(architecture: Json, metrics: Json) -> str:
    """``0.50 of the teacher's MACs and 0.47 of its parameters``."""
    measured = metrics.get("student"), metrics.get("teacher")
    selected = architecture.get("cost"), architecture.get("teacher")
    student, teacher = measured if all(measured) else selected
    if not student or not teacher:
        return ""
    macs = ratio_text(student.get("macs"), teacher.get("macs"))
    params = ratio_text(student.get("params"), teacher.get("params"))
    return f"{macs} of the teacher's MACs and {params} of its parameters"
