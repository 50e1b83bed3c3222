# Two that this machine builds, and one that it can't.
{ host, ... }: {
  web = host { name = "web"; };
  "db.prod" = host { name = "db-prod"; };
  pi = host { name = "pi"; system = "aarch64-linux"; };
}
