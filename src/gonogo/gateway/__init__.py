"""The gateway: translation to xDS (pure), the ADS server and the policy servers (shell)."""
