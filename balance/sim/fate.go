package sim

// begin lets an event of the config begin on a server or, if that is -1, on all of
// its servers.
func (s *simulation) begin(event, server int32) error {
	e := &s.config.Events[event]
	if e.For > 0 {
		s.queue.push(s.now+s.duration(e.For), ceases, event, server)
	}
	return s.affect(event, server, true)
}

// cease ends it, and schedules the next time of one that comes again.
func (s *simulation) cease(event, server int32) error {
	e := &s.config.Events[event]
	if e.Every > 0 {
		s.queue.push(s.now+s.duration(s.fate.ExpFloat64()*e.Every), begins, event, server)
	}
	return s.affect(event, server, false)
}

func (s *simulation) affect(event, server int32, on bool) error {
	e := &s.config.Events[event]
	if server >= 0 {
		s.switchServer(e, server, on)
		return nil
	}
	for k := range max(e.Count, 1) {
		s.switchServer(e, int32(e.First+k), on)
	}
	if e.Do == Leave || e.Do == Join && on {
		return s.announce()
	}
	return nil
}

// switchServer begins or ends an event on one server.
func (s *simulation) switchServer(e *Event, server int32, on bool) {
	sv := &s.servers[server]
	switch e.Do {
	case Slow:
		s.pace(server, e.Factor, on)
	case Fail:
		sv.failing, sv.after = 0, s.duration(e.After)
		if on && e.Prob == 0 {
			sv.failing = 1
		} else if on {
			sv.failing = e.Prob
		}
	case Crash:
		sv.down, sv.after = on, s.duration(e.After)
		if on {
			for _, j := range sv.drop() {
				sv.inFlight--
				s.queue.push(s.now+sv.after, refused, j, 0)
			}
			s.schedule(server)
		}
	case Leave:
		s.enlist(server, !on)
	case Join:
		if on {
			s.enlist(server, true)
		}
		if e.For > 0 {
			s.pace(server, e.Factor, on)
		}
	}
}

func (s *simulation) pace(server int32, factor float64, on bool) {
	sv := &s.servers[server]
	if on {
		sv.slow(s.now, factor)
	} else {
		sv.quicken(s.now, factor)
	}
	s.schedule(server)
}

// enlist makes a server a member of the balancers' sets, or none.
func (s *simulation) enlist(server int32, member bool) {
	s.tally.settleFair(s.servers)
	s.servers[server].member = member
}

// report tells every client the load of every server that it has ever picked: an
// answer is the only way to a balancer.
func (s *simulation) report() {
	for server := range s.servers {
		load := s.load(int32(server))
		for i := range s.clients {
			s.clients[i].latest[server].Report(load)
		}
	}
}
