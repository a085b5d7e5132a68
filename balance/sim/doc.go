// Package sim simulates clients and servers on a virtual clock, with a real
// [balance.Balancer] in each client, to show what a strategy does to the slowest
// requests. The same [Config] gives the same [Result], to the last bit.
//
//	r, err := sim.Run(sim.Config{
//		Seed:        1,
//		Utilization: 0.9,
//		Servers:     []sim.Group{{Count: 100}},
//		Strategy:    balance.LeastRequest(balance.LeastRequestOptions{}),
//	})
//	fmt.Println(r.Mean, r.P99) // against sim.Supermarket(2, 0.9)
//
// [Scenarios] are the cases in which strategies differ. To see them side by side:
//
//	go test -run '^$' -bench Sim -benchtime 1x ./balance/sim
//
// # The model
//
// Requests arrive as a Poisson process, each at a client drawn at random, and need
// work of a random size whose mean is 1. A server does as much work in a unit of time
// as its speed says; it works on a few requests at a time while the others wait
// ([Group].Workers), or on all at once ([Group].Sharing). Events slow servers down,
// make them fail, let them leave and join. A client knows what its own balancer has
// learnt from its own requests, from probes and from reports, and nothing else.
//
// The strategies of one scenario see the same requests: the same arrivals at the same
// clients, of the same sizes. What differs between their figures is due to them.
//
// # How to read the figures
//
// Times are in units of the mean service time, so that they hold for services of a
// millisecond and of a second alike. A mean of 2.6 says that a request takes 2.6 times
// as long as it would alone, and so spends 1.6 of it waiting. What matters more is the
// 99th percentile: a page that needs twenty requests meets it every fifth time.
//
// With nothing to choose by, a server at utilisation u is a queue of its own, with a
// mean of 1/(1-u) and, with exponential sizes, a 99th percentile of 4.6 times that:
// the figures of random, 10 and 46 at 0.9. One queue for all servers would be the best
// that can be: nobody waits while anybody is idle, and at 0.9 a hundred servers have
// a 99th percentile hardly above that of the sizes, 4.6. Strategies lie in between.
//
// MaxShare is 1 for a server that got exactly its fair part. A count of k requests
// varies by its square root, so that of many servers, one is at 1+3/√k or so by chance.
//
// Blind is the part of the picks that the balancer made with nothing to go by. Where
// it is near 1, a strategy has become random, and its figures show it.
//
// A percentile of some hundreds of service times is not a latency. It says that a
// server got more than it can do and that its queue grew for as long as the run
// lasted: read it as "collapses".
//
// Runs vary by chance. With the default number of requests, the mean varies by about
// 1 percent and the 99th percentile by a few, more when utilisation is near 1:
// the time to forget a queue grows as 1/(1-u)². Compare seeds before believing in less.
//
// # What it leaves out
//
// Requests do not come back: clients neither give up nor try again, and their number
// does not fall when the service is slow. The network takes the same time always and
// loses nothing. Picking, probing and connecting cost nothing.
package sim
