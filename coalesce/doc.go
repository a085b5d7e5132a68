// Package coalesce does one piece of work for all callers that ask for the same
// thing at the same time. A [Group] runs the work once per key, gives the result
// to everybody who asked meanwhile, and lets each caller leave on its own.
//
// # The problem
//
// An announcement is posted in a large chat channel. A hundred thousand people
// open the channel in the same second, every one of their requests runs the same
// query, and all of them land on the one database node that holds the channel.
// The node slows down, so the queries overlap even more, so it slows down
// further. This is a thundering herd; around a cache whose entry has just
// expired it is called a cache stampede.
//
// The queries are not only many, they are equal: while one is running, every
// further one asks for what is already on its way.
//
// # The idea
//
// Let the first caller of a key start the work and let those who come while it
// runs wait for its result. One database query answers them all. The longer the
// work takes and the more callers there are, the more is saved: the herd makes
// itself harmless.
//
// Discord put this between its API and its message database, in what they call
// data services: the first request for a channel starts a worker, later ones
// subscribe to it, and a hash of the channel routes all its requests to one
// node, so that one node sees the whole herd and can coalesce it.
//
//	var latest coalesce.Group[string, []Message]
//
//	func Latest(ctx context.Context, channel string) ([]Message, error) {
//		return latest.Do(ctx, channel, func(ctx context.Context) ([]Message, error) {
//			return store.Latest(ctx, channel) // with this ctx, see below
//		})
//	}
//
// # Whose context is it
//
// Shared work has many callers, and each has a deadline of its own. If the work
// ran on the first caller's context, a user who closes the browser would fail
// the requests of all others. If it ran on none, it would go on when nobody
// waits any more. A Group gives the work a context of its own: it has the first
// caller's values and no caller's deadline, and it ends when the last caller has
// left. Each caller returns when its own context ends, and the others do not
// notice.
//
// So use the context that the function is given, and not the one from outside.
// Giving both the same name, as above, makes the mistake hard to write. Set
// Timeout if the work must be bounded although callers keep coming.
//
// # What it is not
//
// It is not a cache. When the work has ended its result is forgotten, and the
// next caller starts anew. Nobody gets a result that was finished before it
// asked, so a Group never serves stale data; and between two herds it saves
// nothing.
//
// It is not a lock either. At most one flight of a key takes callers, but when
// all of these have left, the next caller starts another flight, even if the
// abandoned work is slow to stop. Two executions can then overlap, unless
// Abandon is [Exclusive].
//
// # When not to use it
//
//   - For writes. Two requests to add a message are two messages.
//   - When the key cannot say all that the result depends on.
//   - When equal requests are rare: distinct keys pay for a look-up, and get
//     nothing for it.
//   - When the work is cheaper than waking a goroutine, about a microsecond.
//   - For streams and other results that can be read only once.
//
// # Security: the key must name who asks
//
// Callers with equal keys get each other's results. If the result depends on
// the user, the tenant, the role, the language or anything else, that must be
// part of the key; otherwise one user reads the data of another, and only under
// load. The same holds for the values in the context: the work sees those of
// the first caller, its identity and its trace too. Decide about permission
// before Do, outside the shared work, or make the principal part of the key:
//
//	type key struct{ tenant, user, channel string }
//
// # Reading your own writes
//
// A flight reads at some moment after it began. A caller that has just written,
// and joins a flight that began before its write, may get the state before it.
// Call Forget between the write and the read: the flight goes on for those who
// wait for it, but takes nobody else.
//
// # Sharing the value
//
// All callers get the same value. If it is or holds a pointer, a slice or a map
// and a caller changes it, that is a data race. Treat shared results as
// read-only, or set Clone.
//
// # Watching it
//
// [Group.Stats] counts executions and callers that joined: their ratio is what
// coalescing saves. [Group.Flights] lists what is under way, for a debug page.
// [Trace] has hooks for logs and spans.
//
// # Beyond one key, one moment and one process
//
// A Group is the core. Around it are
//
//   - [Batcher], if one query can answer for many keys: it fetches what collects
//     while a fetch is under way, and a lone key at once;
//   - [Cache], if results may be kept: a Group or a Batcher with a memory, which
//     refreshes before and behind the readers' backs;
//   - package httpcoalesce, for whole HTTP responses, streamed to all clients;
//   - [Owners], which sends all requests for a key to the one node that then sees
//     the whole herd;
//   - [Lead] over a [Lease], if the fleet must do the work once: packages sqllease
//     and redislease hold leases in PostgreSQL, MySQL, MariaDB and Redis;
//   - package stampede, which simulates them against each other.
//
// # Sources
//
//   - Discord, "How Discord Stores Trillions of Messages" (2023): data services.
//   - golang.org/x/sync/singleflight: the same idea without contexts, by which
//     this package is measured. docs/coalesce-peers.md tells what it and others
//     get wrong, each with a reproduction.
//   - facebook/dataloader and its ports to Go, for the Batcher; group commit in
//     databases, for its pace.
//   - Nishtala et al., "Scaling Memcache at Facebook" (NSDI 2013), section 3.2.1,
//     on thundering herds and leases.
package coalesce
