"""A shop whose e-mails are sent durably: webhook and sign-up answer at once, holdfast does the rest."""
