"""What is finished of a scan, against a plain list that is joined anew each time."""

from conftest import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ief_async._checkpoint import Entry, Mark, Run
from ief_async._paging.ledger import Ledger
from ief_async._paging.verdict import Verdict


def report(number, items=0, **options):
    """Return the report of a batch that has ended."""
    return Verdict(items=items, **options).report(number, (f"d{number}",), items, 10, complete=True)


def joined(line):
    """Join the entries of a line that are finished and follow each other."""
    made = []
    for _, entry in line:
        if made and entry.mark is None and made[-1].mark is None:
            made[-1] = Entry(made[-1].run + entry.run)
        else:
            made.append(entry)
    return tuple(made)


class PlainList(RuleBasedStateMachine):
    """A ledger, beside a list of all places and entries that nothing joins."""

    def __init__(self):
        super().__init__()
        self.ledger, self.line, self.apart = Ledger(), [], set()

    @property
    def unfinished(self):
        """The places of the batches that are not finished."""
        return [place for place, entry in self.line if entry.mark is not None]

    def at(self, place):
        """Return where a batch stands."""
        return [one for one, _ in self.line].index(place)

    def set_mark(self, place, mark):
        """Change the mark of a batch."""
        at = self.at(place)
        self.line[at] = (place, Entry(self.line[at][1].run, mark))

    @rule(name=st.integers(0, 50))
    def add(self, name):
        """Add a batch."""
        ids = (f"d{name}", f"e{name}")
        place = self.ledger.add(ids, Mark(name))
        self.line.append((place, Entry(Run.of(ids), Mark(name))))

    @rule(digest=st.integers(0, 50))
    def add_run(self, digest):
        """Add ids that are finished."""
        self.ledger.add_run(Run(1, digest))
        self.line.append((None, Entry(Run(1, digest))))

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data())
    def split(self, data):
        """Split a batch in two."""
        place = data.draw(st.sampled_from(self.unfinished))
        number = next(n for n in range(self.ledger.added) if self.ledger.place_of(n) == place)
        second = self.ledger.split(place, number, (("a",), ("b",)))
        at = self.at(place)
        self.line[at : at + 1] = [
            (self.ledger.place_of(number), Entry(Run.of("a"), Mark())),
            (self.ledger.place_of(second), Entry(Run.of("b"), Mark())),
        ]

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data(), apart=st.booleans())
    def finish(self, data, apart):
        """Finish a batch, for good or not."""
        place = data.draw(st.sampled_from(self.unfinished))
        self.ledger.finish(place, apart=apart)
        self.set_mark(place, None)
        self.apart |= {place} if apart else set()

    @precondition(lambda self: self.apart)
    @rule(data=st.data(), offset=st.none() | st.integers(0, 9))
    def close_or_reopen(self, data, offset):
        """Finish for good a batch that might have been reopened, or reopen it."""
        place = data.draw(st.sampled_from(sorted(self.apart)))
        self.apart.remove(place)
        if offset is None:
            self.ledger.close(place)
        else:
            self.ledger.reopen(place, Mark(offset))
            self.set_mark(place, Mark(offset))

    @invariant()
    def entries_are_those_of_the_list(self):
        """The entries are those of the list, joined; with any batch as if it were read further."""
        assert joined(self.line) == self.ledger.entries()
        assert len(self.unfinished) == self.ledger.unfinished
        for place in self.unfinished[:3]:
            before = self.line[self.at(place)][1].mark
            for mark in (None, Mark(7)):
                self.set_mark(place, mark)
                assert joined(self.line) == self.ledger.entries(place, mark)
            self.set_mark(place, before)


PlainList.TestCase.settings = settings(max_examples=examples(200))
TestPlainList = PlainList.TestCase


def test_finished_batches_take_one_entry():
    """However many batches are finished, in whatever order, one entry is kept of them."""
    ledger = Ledger()
    places = [ledger.add((f"d{number}",), Mark()) for number in range(100)]

    for place in [*places[::2], *places[1::2]]:
        ledger.finish(place, apart=False)

    assert 1 == len(ledger._entries) == len(ledger._places)
    assert (Entry(Run.of(f"d{number}" for number in range(100))),) == ledger.entries()


def test_mark_stays_until_another_is_noted():
    """A batch that is not finished is where its consumer has left it, in one entry of its own."""
    ledger = Ledger()
    place = ledger.add(("a",), Mark())
    mark = Mark(5, 9, ("p4",))
    ledger.note_mark(place, mark)
    (before,) = ledger._entries
    ledger.note_mark(place, mark)

    assert before is ledger._entries[0]
    assert (Entry(Run.of("a"), mark),) == ledger.entries()


def test_reports_come_in_the_order_of_the_ids():
    """A half that got its number late stands where its ids stand; open batches are reported too."""
    ledger = Ledger()
    first, _ = ledger.add(("a", "b"), Mark()), ledger.add(("c",), Mark())
    second = ledger.split(first, 0, (("a",), ("b",)))
    ledger.end(report(1, 3), 3)
    ledger.end(report(second, 2), 4)

    assert [0, 2, 1] == [one.number for one in ledger.reports([report(0)])]
    assert [2, 1] == [one.number for one in ledger.reports([])]
    assert (5, 7) == (ledger.items, ledger.expected)


def test_rows_are_those_of_the_batches_that_ended():
    """What is read on, or corrected, counts as it ended last."""
    ledger = Ledger()
    ledger.add(("a",), Mark())
    ledger.add(("b",), Mark())
    ledger.end(report(0, 3), 4)
    ledger.end(report(1, 5), None)

    ledger.begin_again(0, 4)
    assert (5, 0) == (ledger.items, ledger.expected)
    assert [1] == [one.number for one in ledger.reports([])]
    ledger.end(report(0, 6), 6)
    ledger.correct(report(1, 2))
    ledger.begin_again(1, None)
    ledger.end(report(1, 2), None)

    assert (8, 6) == (ledger.items, ledger.expected)
    assert 2 == ledger.report_of(1).items


def test_doubt_is_told_in_the_report_that_stays():
    """A batch whose last page may have been cut is in doubt, with a flag, once."""
    ledger = Ledger()
    ledger.add(("a",), Mark())
    ledger.end(report(0, drift="exact"), None)

    ledger.doubt(0)
    ledger.doubt(0)

    assert ("unknown", ("clamped",)) == (ledger.report_of(0).drift, ledger.report_of(0).flags)
