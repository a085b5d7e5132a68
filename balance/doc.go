// Package balance chooses one of several backends for each request. A
// [Balancer] with [LeastRequest], the power of two choices, picks in about the
// time of a random number, two atomic loads and one atomic addition, whatever the
// number of backends.
//
// # The problem
//
// Requests do not cost the same and backends are not equally fast. Taking turns
// gives a slow backend as much as a fast one, so its queue grows and the slowest
// requests of all pass through it. Asking everybody for the shortest queue is
// worse: the answer is old by the time it is used, and every client sends its
// next request to the same backend.
//
// # The idea
//
// Draw two backends at random and take the one with fewer requests under way.
// That small amount of choice is nearly as good as full knowledge: with n
// requests on n backends the longest queue falls from about log n / log log n to
// log log n, and a signal that is wrong or old misleads only the pairs it is
// drawn in.
//
//	b, err := balance.New[*url.URL](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{})
//	...
//	err = b.Update([]balance.Backend[*url.URL]{{ID: "a", Value: a}, {ID: "b", Value: b}})
//	...
//	p, err := b.Pick()
//	if err != nil {
//		return err // ErrNoBackends
//	}
//	resp, err := call(p.Value)
//	p.Done(err)
//
// Or let [Balancer.Do] end the pick. A pick that is never done counts as a request
// under way for ever: end every one. For a retry, [Balancer.PickExcept] leaves out
// the backends that have been tried.
//
// # Which strategy
//
//   - [LeastRequest], unless you know better: slow and busy backends get less.
//   - [RoundRobin] if requests are alike and the exact shares matter more than the
//     load.
//   - [Random] if nothing else is known to help, and to compare with.
//
// # Membership
//
// [Balancer.Update] replaces the set of backends. What is known of a backend is
// kept by its ID, so that a deploy does not make the balancer forget which
// backends are busy. A backend that left and came back starts anew.
//
// # Weights
//
// A backend of weight 2 should get twice what one of weight 1 gets, and every
// strategy does that. LeastRequest draws its candidates by weight and compares
// requests under way for each unit of weight; drawing them evenly would cap any
// backend at 2/n of the requests, however large its weight.
//
// # Where it stops working
//
// A balancer knows the requests of its own process only. With many client
// processes, each of which has rarely a request under way, two candidates are
// nearly always both idle in its eyes, and the choice is random again.
//
// A backend that fails at once always looks idle, so that LeastRequest sends it more
// than its share, with two choices and equal weights up to twice as much. The balancer
// counts failures but does not act on them: leave a broken backend out of the next
// Update.
//
// Sources: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing
// (IEEE TPDS 2001); the balancers of Finagle, Envoy and gRPC.
package balance
