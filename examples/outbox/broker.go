package main

// A broker takes every event, at once, and remembers what it got. It could not be
// better, so whatever goes wrong is not its fault.
type broker struct{ got []event }

func (b *broker) take(e event) { b.got = append(b.got, e) }

// A verdict compares what the broker got with what committed.
type verdict struct {
	committed  int // changes
	lost       int // of these: the broker never heard of them
	invented   int // events of changes that never happened
	disordered int // events that came first after a later one of their order
	repeated   int // events that came again
}

func (b *broker) judge(committed map[int]bool) verdict {
	v := verdict{committed: len(committed)}
	seen := map[int]bool{}
	var newest [orders]int
	for _, e := range b.got {
		switch {
		case !committed[e.Request]:
			v.invented++
			continue
		case seen[e.Request]:
			v.repeated++
			continue
		case e.Version < newest[e.Order]:
			v.disordered++
		}
		seen[e.Request] = true
		newest[e.Order] = max(newest[e.Order], e.Version)
	}
	v.lost = len(committed) - len(seen)
	return v
}
