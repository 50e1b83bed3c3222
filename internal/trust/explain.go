package trust

import "fmt"

// Report is what one policy makes of a token, rule by rule. Like Explanation it is for
// the owner of the server.
type Report struct {
	Policy  string       `json:"policy"`
	Matched bool         `json:"matched"`
	Rules   []RuleReport `json:"rules"`
	Notes   []string     `json:"notes,omitempty"` // about names that have changed hands
	Grant   Grant        `json:"-"`
}

// RuleReport is one rule. Got is quoted and bounded.
type RuleReport struct {
	Key   string `json:"key"`   // of the policy
	Claim string `json:"claim"` // of the token
	Got   string `json:"got"`
	Want  string `json:"want"`
	OK    bool   `json:"ok"`
}

// Explain judges claims as Match does and reports every rule of every policy, also
// those behind the first that fails.
func (s *Set) Explain(issuer string, claims map[string]any) []Report {
	if s == nil {
		return nil
	}
	reports := make([]Report, 0, len(s.policies))
	for _, p := range s.policies {
		reports = append(reports, p.report(issuer, claims))
	}
	return reports
}

func (p compiled) report(issuer string, claims map[string]any) Report {
	r := Report{Policy: p.grant.Policy, Matched: issuer == p.issuer, Grant: p.grant.clone()}
	r.Rules = append(r.Rules, RuleReport{Key: "issuer", Claim: "iss", Got: quote(issuer), Want: fmt.Sprintf("wants %q", p.issuer), OK: r.Matched})
	ok := map[string]bool{}
	for _, rl := range p.rules {
		one := RuleReport{Key: rl.key, Claim: rl.from.name, Got: "absent", Want: rl.want, OK: rl.mismatch(claims) == ""}
		if v, there := rl.from.get(claims); there {
			one.Got = text(v)
		}
		ok[rl.key] = one.OK
		r.Matched = r.Matched && one.OK
		r.Rules = append(r.Rules, one)
	}
	if issuer == p.issuer {
		r.Notes = p.names(ok, claims)
	}
	return r
}

// names compares the ids of the policy with the names beside them.
func (p compiled) names(ok map[string]bool, claims map[string]any) (notes []string) {
	for _, n := range []struct {
		id, name, want string
		from           value
	}{
		{p.profile.id.key, "repository", p.source.Repository, p.profile.repository},
		{p.profile.owner.key, "repository-owner", p.source.RepositoryOwner, p.profile.ownerName},
	} {
		id, hasID := ok[n.id]
		name, hasName := ok[n.name]
		v, _ := n.from.get(claims)
		switch {
		case !hasID || !hasName || id == name:
		case id:
			notes = append(notes, fmt.Sprintf("%s is the policy's and the name is another: it was renamed or transferred; if that is meant, change %s to %s", n.id, n.name, text(v)))
		default:
			notes = append(notes, fmt.Sprintf("%s %s is the policy's name with another id: somebody else has taken the name, or it was made anew", n.name, text(v)))
		}
	}
	return notes
}
