package config

import "regexp"

// envFly is set on machines of fly.io, to the name of the app. Nothing but fly's proxy,
// and the machines of the same organisation, can connect there. So a server there
// listens for them without being told, believes the proxy's Fly-Client-IP, and is
// reached at the app's own host name, by https.
const envFly = "FLY_APP_NAME"

// flyApp is what fly.io takes for an app's name: it becomes a host name.
var flyApp = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (b *builder) onFly() bool { return b.getenv(envFly) != "" }

// flyEndpoint is the URL of the app, "" elsewhere. With a domain of its own,
// server.toml says so by api-endpoint.
func (b *builder) flyEndpoint() string {
	app := b.getenv(envFly)
	if app == "" {
		return ""
	}
	if !flyApp.MatchString(app) {
		b.warnings = append(b.warnings, envFly+" is no name of an app, so api-endpoint is not known from it")
		return ""
	}
	return "https://" + app + ".fly.dev/"
}
