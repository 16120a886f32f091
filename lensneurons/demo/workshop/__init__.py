"""How the demo model is trained; this package stays in the repository and out of the wheel."""
