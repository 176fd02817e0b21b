//! One table of all settings: key, type, default, when a change applies, meaning, and the reason of the
//! default. The parser, `reflex-edge config`, the reload and `docs/settings.md` are made of it.

/// When a change of a setting applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// With a reload: to all requests that begin after it.
    Reload,
    /// With the next start.
    Restart,
}

/// A setting as the documentation has it.
#[derive(Debug)]
pub struct Setting {
    /// As it is written in the file.
    pub key: &'static str,
    /// Its earlier key, whose value is a whole number of the unit in its name; empty if it has none.
    pub old: &'static str,
    /// When a change applies.
    pub applies: Applies,
    /// What it does.
    pub about: &'static str,
    /// Why the default is what it is.
    pub reason: &'static str,
    /// A value, for settings that have no default.
    pub example: &'static str,
    /// Whether a variable of the environment can hold it.
    pub is_scalar: bool,
    pub(crate) form: fn() -> String,
}

impl Setting {
    /// What is written, in a few words.
    pub fn form(&self) -> String {
        (self.form)()
    }

    /// Whether it is a list of tables, as `[[price]]` is.
    pub fn is_tables(&self) -> bool {
        self.example.starts_with("[[")
    }

    /// The variable of the environment that holds it.
    pub fn variable(&self) -> String {
        format!("{VARIABLE}{}", self.key.to_ascii_uppercase())
    }
}

/// What the variables begin with.
pub const VARIABLE: &str = "REFLEX_EDGE_";

/// Makes the struct of all values and the table of all settings of the same rows. A row is
///
/// ```text
/// key (was "old_key"): Type = default, Reload or Restart, "meaning", "reason" (eg "example");
/// ```
macro_rules! settings {
    ($($key:ident $((was $old:literal))?: $type:ty = $default:expr, $applies:ident,
        $about:literal, $reason:literal $((eg $example:literal))?;)*) => {
        /// The values of all settings, as given or by default.
        #[derive(Clone, Debug)]
        pub(crate) struct Values {
            $(#[doc = $about] pub(crate) $key: $type,)*
        }

        impl Default for Values {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl Values {
            /// Takes a value of the file.
            pub(crate) fn set(
                &mut self,
                key: &str,
                value: Spanned<DeValue<'_>>,
            ) -> Result<(), Vec<Fault>> {
                match key {
                    $(stringify!($key) => self.$key = Read::read(value)?,)*
                    _ => {}
                }
                Ok(())
            }

            /// Takes a variable of the environment.
            pub(crate) fn set_text(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $(stringify!($key) => self.$key = Read::read_text(text)?,)*
                    _ => {}
                }
                Ok(())
            }

            /// Each value as it is written, in the order of [`SETTINGS`]; empty if there is none.
            pub(crate) fn written(&self) -> Vec<String> {
                vec![$(Read::write(&self.$key),)*]
            }

            /// With the settings that need a restart as they are in the running process.
            pub(crate) fn after_reload_of(mut self, running: &Self) -> Self {
                $(if Applies::$applies == Applies::Restart {
                    self.$key = running.$key.clone();
                })*
                self
            }
        }

        /// All settings, in the order of the documentation.
        pub static SETTINGS: &[Setting] = &[$(Setting {
            key: stringify!($key),
            old: concat!($($old)?),
            applies: Applies::$applies,
            about: $about,
            reason: $reason,
            example: concat!($($example)?),
            is_scalar: <$type as Read>::IS_SCALAR,
            form: <$type as Read>::form,
        },)*];
    };
}

pub(crate) mod rows;

pub use rows::SETTINGS;
pub(crate) use rows::Values;
