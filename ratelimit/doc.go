// Package ratelimit decides how much may pass: at most so many units a period, with
// a burst, for one caller or for each key. The answer is exact, under any
// contention and any clock, and costs about as much as reading the clock.
//
// # The problem
//
// A service that takes what it is given is as available as its greediest client. A
// loop without a pause, a retry storm or a scraper uses up what all others need.
// So each client gets a limit, and what is above it is refused, or waits.
//
// A limiter is easy to write and easy to get wrong. Counters in fixed windows let
// twice the limit through at every boundary. Buckets with a clock reading that is
// taken before a lock can see time go backwards, and mint tokens on its way
// forward again. Whole nanoseconds an event make 700 million a second into a
// thousand million. A map of keys grows with every key that an attacker invents,
// and one that forgets the oldest gives each forgotten key a fresh burst.
//
// # The idea
//
// The generic cell rate algorithm keeps one number: the moment at which everything
// granted so far has flowed in again, the theoretical arrival time. A grant of n
// units moves it n emission intervals ahead, from now if it lies in the past. It is
// refused if the number would come to lie more than a burst ahead of now:
//
//	               now                                     now + burst
//	                |-- owed --|------------ free ------------|
//	----------------+----------*------------------------------+------> time
//	                      arrival time
//
// One number is one atomic word: a decision is one compare-and-swap. What remains,
// when to come again and when all is free are distances in this picture. The word
// never moves back with the clock, so a stale or a stepped clock can refuse but not
// grant. And a word that lies in the past says nothing, so a key that owes nothing
// needs no memory.
//
// # How to use it
//
//	limiter, err := ratelimit.NewLimiter(ratelimit.Per(100, time.Second).Burst(200))
//	...
//	if !limiter.Allow() {
//		return errBusy
//	}
//
// [Limiter] is one limit and [Keyed] is one for each key, in memory of fixed size; with
// [NewKeyedBy] each key has a limit of its own. Both have Allow for one unit and Take for
// several; Take returns a [Decision] that says how much is left and when to come again.
// Wait sleeps until the units are there, in the order of asking, and Reserve promises
// them for later. A [Reservation] can be cancelled, or settled when the true cost of a
// query is known. TakeUpTo takes what is there, Peek only looks. TakeAt takes the time
// from the caller, for replays and tests. [All] asks several limits at once, all or
// nothing. [ParseLimit] reads a limit from a configuration.
//
// The package httplimit is a middleware for net/http, the module grpclimit has the
// interceptors for gRPC, and the package shed limits what is in progress and sheds what
// is too much for the server. Which limiter is for what: docs/which-limiter.md.
//
// # The guarantee
//
// In every window of time of length w at most burst + rate*w units are admitted: by
// a Limiter, and by a Keyed for each key. It holds for any number of goroutines, for
// times in any order, for any number of keys in a table that is far too small for
// them, and with the rate as it was written, never rounded up. Across
// [Limiter.SetLimit] the units that are free are carried over and none are added.
//
// # When not to use it
//
// A limit of its own in each of ten processes is ten limits. Divide the limit by the
// number of processes if that is good enough, or route a key to one process.
//
// A rate is not a capacity. It keeps clients from each other; it does not know what
// the server can bear today, and a thousand clients within their limits can be too
// many. That needs a limit on what is in progress: the package shed.
//
// # Sources
//
// ITU-T I.371 (GCRA). Metwally, Agrawal and El Abbadi, "Efficient Computation of
// Frequent and Top-k Elements in Data Streams", ICDT 2005 (the rule by which a full
// set of Keyed makes room). The names of Limiter's methods are those of
// golang.org/x/time/rate.
package ratelimit
