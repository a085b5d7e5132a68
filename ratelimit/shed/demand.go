package shed

// Demand returns a utilization for the [Shedder] in front of the gate: the share of the
// limit that is in use, times the number of requests that came to the gate for each that
// it let in, since the function was called last. Up to 1 it says how full the gate is,
// above 1 by how much more is asked for than it lets in.
//
// It is the right one for a Shedder with a gate behind it. The load of processors, and
// what is in progress, look the same whether the gate refuses nobody or two thirds: a
// shedder that goes by them sheds what the gate would have served (package sim). Take
// bounds around 1, and a faster way back, since what comes back too early meets the gate:
//
//	shed.ShedderOptions{Utilization: gate.Demand(), High: 1.1, Low: 0.95, RestoreOver: 40 * time.Second}
//
// It knows what came to the gate. What waits before it, in Go's scheduler, it does not see.
//
// The function is for one Shedder, which calls it from one goroutine at a time. It costs
// what Stats costs.
func (c *Concurrency) Demand() func() float64 { return c.door.demand() }

// Demand returns a utilization for the [Shedder] in front of the gate, as
// [Concurrency.Demand] does.
func (a *Adaptive) Demand() func() float64 { return a.door.demand() }

func (d *door) demand() func() float64 {
	var came, in uint64
	return func() float64 {
		d.mu.Lock()
		s := d.stats()
		d.mu.Unlock()
		lastCame, lastIn := came, in
		in = s.Admitted.Total()
		came = in + s.Refused().Total()
		use := min(1, float64(s.InFlight)/float64(s.Limit))
		return use * float64(max(1, came-lastCame)) / float64(max(1, in-lastIn))
	}
}
