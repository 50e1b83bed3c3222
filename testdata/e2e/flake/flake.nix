{
  description = "Hosts for the workflow tests: no inputs, no network, a second to build";

  # hosts.nix is one of ../hosts; salt.nix makes each run's derivations new; gate.nix names the file that a slow build waits for.
  outputs = { self }:
    let
      salt = import ./salt.nix;
      derive = args: derivation ({ system = "x86_64-linux"; builder = "/bin/sh"; inherit salt; PATH = "/usr/bin:/bin"; } // args);
      host = { name, system ? "x86_64-linux", dep ? "echo what ${name} needs > $out", build ? "echo ${name} $dep > $out" }: {
        config.system.build.toplevel = derive {
          name = "nixos-system-${name}";
          inherit system;
          dep = derive {
            name = "dep-of-${name}";
            inherit system;
            args = [ "-c" dep ];
          };
          args = [ "-c" build ];
        };
      };
    in {
      nixosConfigurations = import ./hosts.nix { inherit host; gate = import ./gate.nix; };
    };
}
