package foresight

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// closure is a random one: refs of a path go to paths that were made before it.
func closure(r *rand.Rand, n int) (c *Closure, refs map[string][]string) {
	c, refs = &Closure{}, map[string][]string{}
	var made []string
	for range n {
		hash := fmt.Sprintf("%032x", r.Uint64())
		var of []string
		for range r.IntN(4) {
			if len(made) > 0 {
				of = append(of, made[r.IntN(len(made))])
			}
		}
		refs[hash] = of
		made = append(made, hash)
	}
	r.Shuffle(n, func(i, j int) { made[i], made[j] = made[j], made[i] })
	for _, hash := range made {
		c.Add(hash, append(refs[hash], hash)) // paths refer to themselves
	}
	return c, refs
}

// inDepth is the order of a serial Nix, written down as Nix has it.
func inDepth(refs map[string][]string) (list []string) {
	var all []string
	for hash := range refs {
		all = append(all, hash)
	}
	slices.Sort(all)
	seen := map[string]bool{}
	var visit func(string)
	visit = func(hash string) {
		if seen[hash] {
			return
		}
		seen[hash] = true
		of := slices.Clone(refs[hash])
		slices.Sort(of)
		for _, ref := range of {
			visit(ref)
		}
		list = append(list, hash)
	}
	for _, hash := range all {
		visit(hash)
	}
	return list
}

// inBreadth is the order of a Nix with several threads: what has no references left, by hash, is queued.
func inBreadth(refs map[string][]string) (list []string) {
	left, back := map[string]map[string]bool{}, map[string][]string{}
	for hash, of := range refs {
		left[hash] = map[string]bool{}
		for _, ref := range of {
			if !left[hash][ref] {
				back[ref] = append(back[ref], hash)
			}
			left[hash][ref] = true
		}
		if len(of) == 0 {
			list = append(list, hash)
		}
	}
	slices.Sort(list)
	for i := 0; i < len(list); i++ {
		slices.Sort(back[list[i]])
		for _, hash := range back[list[i]] {
			if delete(left[hash], list[i]); len(left[hash]) == 0 {
				list = append(list, hash)
			}
		}
	}
	return list
}

func TestWhatComesNextIsForeseen(t *testing.T) {
	for name, order := range map[string]func(map[string][]string) []string{"depth": inDepth, "breadth": inBreadth} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			c, refs := closure(r, 500)
			asked := order(refs)
			if len(asked) != 500 {
				t.Fatalf("%d paths in order", len(asked))
			}
			w := c.Walk()
			right := 0
			for i, hash := range asked {
				if next := w.Next(3); len(next) > 0 && next[0] == hash {
					right++
				} else if i > 60 {
					t.Errorf("asked for the %d. path, foresaw %d, that is none of them", i, len(next))
				}
				w.Took(hash)
			}
			if right < 440 {
				t.Errorf("%d of 500 were foreseen", right)
			}
			if next := w.Next(3); len(next) != 0 {
				t.Errorf("behind the last one: %q", next)
			}
		})
	}
}

// Two downloads at once overtake each other.
func TestLittleDisorderIsNoOtherOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	c, refs := closure(r, 300)
	asked := inDepth(refs)
	for i := 0; i+1 < len(asked); i += 2 {
		asked[i], asked[i+1] = asked[i+1], asked[i]
	}
	w := c.Walk()
	for i, hash := range asked[:290] {
		if next := w.Next(8); i > 60 && !slices.Contains(next, hash) {
			t.Errorf("the %d. path is not among those foreseen", i)
		}
		w.Took(hash)
	}
}

// A build substitutes what it happens to need. To fetch something else for it would cost and gain nothing.
func TestNothingIsForeseenOfWhoFollowsNoOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	c, refs := closure(r, 2000)
	var asked []string
	for hash := range refs {
		asked = append(asked, hash)
	}
	slices.Sort(asked)
	r.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
	w := c.Walk()
	foreseen := 0
	for _, hash := range asked {
		foreseen += min(1, len(w.Next(8)))
		w.Took(hash)
	}
	if foreseen > len(asked)/10 {
		t.Errorf("something was foreseen %d times of %d", foreseen, len(asked))
	}
}

// The attack: a closure that refers to itself, to what is not there, or is as deep as it is large.
func TestHostileClosuresEndAllTheSame(t *testing.T) {
	c := &Closure{}
	for i := range 100_000 {
		c.Add(fmt.Sprintf("%032d", i), []string{fmt.Sprintf("%032d", i+1), fmt.Sprintf("%032d", i/2), "not there"})
	}
	w := c.Walk()
	for i := 99_999; i > 99_900; i-- {
		w.Took(fmt.Sprintf("%032d", i))
		w.Next(32)
	}
	w.Took("unknown")
	if w.Size() != 100_000 {
		t.Errorf("%d paths", w.Size())
	}
	c.Add("later", []string{"not there"})
	w.Took("later")
	if empty := (&Closure{}).Walk(); len(empty.Next(1)) != 0 {
		t.Error("something of nothing")
	}
}
